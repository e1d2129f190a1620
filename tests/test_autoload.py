"""One line of the user's IPython profile: put in, found by IPython, taken out, and nothing else touched."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from llm_magic.autoload import LINE, disable, enable


@pytest.mark.parametrize(
    "before",
    [
        b"",
        b"c = get_config()\n",
        b"x = 1",
        b"x = 1\r\ny = 2",
        b"# a\r\nc.A.b = 1\r\n",
        b"\xef\xbb\xbf# bom\n\n\n",
        "ümlaut\n".encode("latin-1"),
    ],
)
def test_the_file_is_afterwards_what_it_was(tmp_path, before):
    path = tmp_path / "profile" / "ipython_config.py"
    if before:
        path.parent.mkdir()
        path.write_bytes(before)
    assert enable(path) and not enable(path)
    enabled = path.read_bytes()
    assert enabled.startswith(before) and enabled.count(LINE) == 1
    assert disable(path) and not disable(path)
    assert (path.read_bytes() if path.exists() else b"") == before
    assert path.exists() is bool(before)
    assert [item.name for item in path.parent.iterdir()] == (["ipython_config.py"] if before else [])


@pytest.mark.skipif(not hasattr(os, "symlink"), reason="no links here")
def test_a_linked_profile_stays_a_link_and_keeps_its_mode(tmp_path):
    real, link = tmp_path / "dotfiles.py", tmp_path / "ipython_config.py"
    real.write_text("x = 1\n")
    real.chmod(0o600)
    link.symlink_to(real)
    enable(link)
    assert link.is_symlink() and LINE in real.read_bytes() and real.stat().st_mode & 0o777 == 0o600


def test_ipython_loads_the_extension_when_it_is_enabled(tmp_path):
    environment = os.environ | {"IPYTHONDIR": str(tmp_path)}

    def run(*command):
        return subprocess.run([sys.executable, *command], env=environment, capture_output=True, text=True, timeout=120)

    ask = ("-m", "IPython", "-c", "print('loaded', get_ipython().find_line_magic('llm') is not None)")
    for command, expected in (("enable", "loaded True"), ("enable", "loaded True"), ("disable", "loaded False")):
        done = run("-m", "llm_magic", command)
        assert done.returncode == 0 and str(tmp_path) in done.stdout
        assert expected in run(*ask).stdout
    assert "usage" in run("-m", "llm_magic", "explode").stderr
