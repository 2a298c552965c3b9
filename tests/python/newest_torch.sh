#!/bin/bash
# Builds the wheel for the registry's newest torch, installs it into a bare environment and runs the
# operators' and the package's CPU tests there: tests/python/newest_torch.sh [folder of the environment]
# Needs 6 GB of disk and a C++ compiler; TORCH=torch==2.14.1 asks for another release.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
environment=${1:-$root/out/newest-torch}
python=$environment/bin/python

[[ -x $python ]] || python3 -m venv "$environment"
install=("$python" -m pip install --quiet)
if "$python" -m pip install --quiet uv; then install=("$python" -m uv pip install --quiet --python "$python"); fi
"${install[@]}" --upgrade "${TORCH:-torch}" numpy pytest matplotlib setuptools scikit-build-core cmake ninja
"$python" -c 'import torch; print("torch", torch.__version__)'

rm -rf "$environment/wheel"
SKBUILD_CMAKE_DEFINE=RP_CUDA=OFF PATH=$environment/bin:$PATH \
    "$python" -m pip wheel --quiet --no-deps --no-build-isolation -w "$environment/wheel" "$root/python"
"$python" -m pip install --quiet --no-deps --force-reinstall "$environment"/wheel/*.whl

cd "$root"
unset LD_LIBRARY_PATH PYTHONPATH RP_BUILD RP_OPS_LIBRARY
RP_OPS_LIBRARY=$("$python" -c 'import return_predictor; print(return_predictor.library.find())')
export RP_OPS_LIBRARY RP_INSTALLED=1 OMP_NUM_THREADS=1
exec "$python" -m pytest -c tests/pytest.ini --rootdir "$root" -m "not slow" tests/ops tests/python
