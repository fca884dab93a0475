#!/usr/bin/env bash
# Run every chapter in an environment that has what Colab has and not mcunc: `make colab`.
# Each chapter's own first cell has to install the package, and must leave all else as it is.
# bash tests/colab.sh [NOTEBOOK ...] runs only these.  PYTHON names another interpreter (3.11+).
set -euo pipefail
cd "$(dirname "$0")/.."
shopt -s nullglob

notebooks=("$@")
[ $# -gt 0 ] || notebooks=(book/*.ipynb)
[ ${#notebooks[@]} -gt 0 ] || { echo "colab: there are no chapters in book/" >&2; exit 1; }

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
unset PYTHONPATH PYTHONHOME VIRTUAL_ENV MCUNC_DATA
export PYTHONNOUSERSITE=1 JUPYTER_PREFER_ENV_PATH=1 PIP_DISABLE_PIP_VERSION_CHECK=1
export PYDEVD_DISABLE_FILE_VALIDATION=1 # else the kernel's debugger chats on every start

echo "colab: making the environment (several GB with torch; removed at the end)"
"${PYTHON:-python3}" -m venv "$work/env"
"$work/env/bin/pip" install --quiet -r tests/colab-requirements.txt
"$work/env/bin/pip" check

# A copy, because setuptools leaves build/ and *.egg-info in the folder it builds from.
mkdir "$work/source" "$work/notebooks"
cp -r pyproject.toml README.md LICENSE* mcunc "$work/source"
export MCUNC_REPOSITORY="$work/source"

for notebook in "${notebooks[@]}"; do
    cp "$notebook" "$work/notebooks/"
    "$work/env/bin/python" tests/colab_chapter.py "$work/notebooks/$(basename "$notebook")"
    "$work/env/bin/pip" uninstall --quiet --yes mcunc # so that the next one proves its own cell
done
echo "colab: ${#notebooks[@]} chapters ran"
