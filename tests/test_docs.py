"""The docs are a contract: every public name is in the reference, and the blocks of tutorial and howtos run."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import stepwell
import stepwell.durable
import stepwell.testing

ROOT = Path(__file__).parent.parent
PAGES = sorted([*(ROOT / "docs" / "tutorial").glob("*.md"), *(ROOT / "docs" / "howto").glob("*.md")])


def test_every_public_name_is_in_the_reference() -> None:
    text = (ROOT / "docs" / "reference" / "durable.md").read_text("utf-8")
    names = {*stepwell.__all__, *stepwell.durable.__all__}
    assert sorted(name for name in names if f"- `{name}`:" not in text) == []


def test_every_public_name_of_the_test_kit_is_in_the_reference() -> None:
    text = (ROOT / "docs" / "reference" / "testing.md").read_text("utf-8")
    assert [name for name in stepwell.testing.__all__ if f"- `{name}`:" not in text] == []


def test_the_command_line_reference_is_what_the_commands_say() -> None:
    subprocess.run([sys.executable, str(ROOT / "scripts" / "docs_cli.py"), "--check"], check=True)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_blocks_run(page: Path, tmp_path: Path) -> None:
    blocks = re.findall(r"```python\n(.*?)```", page.read_text("utf-8"), re.DOTALL)
    assert blocks
    (tmp_path / "app.py").write_text(blocks[0])
    name = re.findall(r"@durable_execution\ndef (\w+)", blocks[0])[0]
    call = f"import stepwell, app\ntry:\n    print(stepwell.run(app.{name}, {{'name': 'x'}}))\n"
    call += "except stepwell.RunFailed as error:\n    assert isinstance(error, ZeroDivisionError)\n"
    if any("def test_" in block for block in blocks):
        call = "import app\n"  # its own tests run it, in virtual time
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    for code in (call, *blocks[1:]):
        command = ["-c", code]
        if "def test_" in code:
            (tmp_path / "test_page.py").write_text(code)
            command = ["-m", "pytest", "-q", "-W", "error", "test_page.py"]
        done = subprocess.run([sys.executable, *command], cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


def test_the_readme_is_true(tmp_path: Path) -> None:
    readme = (ROOT / "README.md").read_text("utf-8")
    block = re.findall(r"```python\n(.*?)```", readme, re.DOTALL)[0].replace("context.wait(30)", "context.wait(0.01)")
    (tmp_path / "app.py").write_text(block)
    command = [
        sys.executable,
        "-m",
        "stepwell.cli",
        "run",
        "app.py:handler",
        "--input",
        '{"amount": 10}',
        "--id",
        "order-1",
    ]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout == "charging 10\nsending {'charged': 10}\n\"sent\"\n"
