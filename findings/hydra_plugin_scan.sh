#!/usr/bin/env bash
# hydra-core 1.3.8, hydra-joblib-launcher 1.2.0
#
# Guess:  Hydra's search for plugins imports their modules as `import` does.
# Seen:   it runs each module by its loader. (1) A module that was imported before is run a second time, in
#         place: its classes are new ones, and an object made before is no instance of the class that the
#         module's name leads to. (2) A module that was not is put into sys.modules but not bound in its
#         package, so that after `import a.b.c`, which then has nothing to do, a.b.c is an AttributeError.
# So:     let a plugin's module hold the plugin alone, with classes and registries in a module outside
#         hydra_plugins; walk a dotted path with importlib (or hydra.utils.get_class), not with getattr.
#
# Output seen:
#   hydra-core 1.3.8
#   imported before the search: the launcher made then is an instance of JoblibLauncher: False
#   imported after the search: module 'hydra_plugins' has no attribute 'hydra_joblib_launcher'
#   imported after the search, by `from ... import`: JoblibLauncher
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install --quiet hydra-core==1.3.8 hydra-joblib-launcher==1.2.0
cat > finding.py <<'EOF'
import subprocess
import sys

BEFORE = """
import hydra_plugins.hydra_joblib_launcher.joblib_launcher as module
from hydra.core.plugins import Plugins

launcher = module.JoblibLauncher()
assert isinstance(launcher, module.JoblibLauncher)
Plugins.instance()
print(isinstance(launcher, module.JoblibLauncher))
"""
AFTER = """
from hydra.core.plugins import Plugins

Plugins.instance()
import hydra_plugins.hydra_joblib_launcher.joblib_launcher

try:
    print(hydra_plugins.hydra_joblib_launcher.joblib_launcher.__name__)
except AttributeError as error:
    print(error)
"""
FROM = """
from hydra.core.plugins import Plugins

Plugins.instance()
from hydra_plugins.hydra_joblib_launcher.joblib_launcher import JoblibLauncher

print(JoblibLauncher.__name__)
"""


def run(code):
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.strip()


import hydra

print("hydra-core", hydra.__version__)
before, after, by_from = run(BEFORE), run(AFTER), run(FROM)
print("imported before the search: the launcher made then is an instance of JoblibLauncher:", before)
print("imported after the search:", after)
print("imported after the search, by `from ... import`:", by_from)
assert before == "False", "a module that was imported is left alone now"
assert "has no attribute" in after, "the package has its module as an attribute now"
assert by_from == "JoblibLauncher"
EOF
venv/bin/python -W ignore finding.py
