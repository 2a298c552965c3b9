"""What a Python team would deploy for the same model: ONNX Runtime behind FastAPI or Flask."""

import os

import numpy as np
import onnxruntime

options = onnxruntime.SessionOptions()
options.intra_op_num_threads = 1
session = onnxruntime.InferenceSession(
    os.environ["RP_ONNX"], options, providers=["CPUExecutionProvider"]
)


def predict(body):
    window = np.asarray([body["sequence"]], dtype=np.float32)
    (returns,) = session.run(None, {"features": window})
    return {"predicted_return": float(returns[0]), "sequence_length": window.shape[1]}


if os.environ["RP_PEER"] == "fastapi":
    import fastapi

    app = fastapi.FastAPI()

    @app.post("/predict")
    async def fastapi_predict(request: fastapi.Request):
        return predict(await request.json())

else:
    import flask

    app = flask.Flask(__name__)

    @app.post("/predict")
    def flask_predict():
        return predict(flask.request.get_json())
