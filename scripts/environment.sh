# Sourced by the other scripts: makes .venv with this checkout and the extra named by $1 ("train", "test"), at the versions of
# constraints.txt, and activates it. A second call only checks that everything is there. PYTHON=… chooses the interpreter.
extra=$1
python=${PYTHON:-python3}
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
    echo "isosweep needs Python 3.11 or later; choose one, for instance with PYTHON=python3.12 bash $0" >&2
    exit 2
}
[ -x .venv/bin/python ] || "$python" -m venv .venv
source .venv/bin/activate
python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable ".[$extra]"
