"""A script and an import of it agree on the names of its classes; what importing costs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import stepwell.errors

SRC = str(Path(stepwell.errors.__file__).parents[2])
APP = """
import sys
from dataclasses import dataclass
from enum import Enum
from stepwell.errors import StepError, type_name
from stepwell.serde import capture, decode, encode, rebuild

@dataclass
class Point:
    x: int

class Bad(Exception):
    pass

class Kind(Enum):
    A = 1

if __name__ == "__main__":
    text = encode([Point(1), Kind.A, Bad("b")])
    value = decode(text)
    assert type(value[0]) is Point and value[1] is Kind.A and type(value[2]) is Bad
    assert len([m for m in sys.modules if m.endswith("app_script")]) <= (1 if __spec__ else 0), "imported twice"
    record = capture(Bad("b"))
    assert isinstance(rebuild(record, StepError), Bad)
    assert record.type.endswith("app_script.Bad") and type_name(Bad) == record.type
    print(text)
"""


def python(*args: str, cwd: Path) -> str:
    env = {**os.environ, "PYTHONPATH": SRC}
    done = subprocess.run(
        [sys.executable, *args], cwd=cwd, env=env, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_script_and_import_agree(tmp_path: Path) -> None:
    (tmp_path / "app_script.py").write_text(APP)
    text = python("app_script.py", cwd=tmp_path)
    assert '"c":"app_script:Point"' in text
    imported = f"""
import app_script
from stepwell.serde import decode, encode
value = decode({text!r})
assert type(value[0]) is app_script.Point and value[1] is app_script.Kind.A and type(value[2]) is app_script.Bad
print(encode(value))
"""
    assert python("-c", imported, cwd=tmp_path) == text


def test_module_run_with_m(tmp_path: Path) -> None:
    (tmp_path / "pack").mkdir()
    (tmp_path / "pack" / "__init__.py").write_text("")
    (tmp_path / "pack" / "app_script.py").write_text(
        APP.replace('endswith("app_script")', 'endswith("pack.app_script")')
    )
    assert '"c":"pack.app_script:Point"' in python("-m", "pack.app_script", cwd=tmp_path)


def test_a_program_named_like_its_package(tmp_path: Path) -> None:
    (tmp_path / "pack").mkdir()
    (tmp_path / "pack" / "__init__.py").write_text("class Bad(Exception):\n    pass\n")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "pack").write_text(
        f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
        "from stepwell.serde import decode\n"
        'error = decode(\'{"$":"error","v":{"type":"pack.Bad","message":"m","classes":["pack:Bad"]}}\')\n'
        "print(type(error).__module__, type(error).__name__)\n"
    )
    assert python("bin/pack", cwd=tmp_path) == "pack Bad"


def test_a_class_gone_from_a_script_does_not_run_it_again(tmp_path: Path) -> None:
    (tmp_path / "once.py").write_text(
        "print('run')\nfrom stepwell.serde import decode\n"
        'try:\n    decode(\'{"$":"dataclass","c":"once:Gone","v":{}}\')\n'
        "except Exception as error:\n    print(error)\n"
    )
    shown = python("once.py", cwd=tmp_path).splitlines()
    assert shown == ["run", "cannot be read: once:Gone is gone: module 'once' has no class 'Gone'"]


def test_interactive_code_keeps_main(tmp_path: Path) -> None:
    code = """
from dataclasses import dataclass
from stepwell.serde import decode, encode
@dataclass
class P:
    x: int
print(encode(P(1)), decode(encode(P(1))) == P(1))
"""
    assert python("-c", code, cwd=tmp_path) == '{"$":"dataclass","v":{"x":1},"c":"__main__:P"} True'


def test_nothing_heavy_is_imported(tmp_path: Path) -> None:
    heavy = "pydantic dataclasses asyncio sqlite3 click json zoneinfo pathlib pickle logging traceback stepwell.core stepwell.journal"
    code = f"import sys, stepwell.serde; print([m for m in {heavy.split()!r} if m in sys.modules])"
    assert python("-S", "-c", f"import sys; sys.path[:] = {sys.path!r}; {code}", cwd=tmp_path) == "[]"
