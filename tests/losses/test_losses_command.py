"""`prove losses list` and `show`."""

import json
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from prove.catalog.losses import ALIASES, LOSSES
from prove.cli.losses import app
from prove.errors import ProveError


def output(*arguments):
    result = CliRunner().invoke(app, list(arguments), env={"COLUMNS": None}, catch_exceptions=False)
    assert result.exit_code == 0
    return result.stdout


def test_list_names_every_loss_and_alias():
    lines = output("list").splitlines()
    assert {line.split()[0] for line in lines[1:]} == {*LOSSES.names, *ALIASES}
    assert [entry["name"] for entry in json.loads(output("list", "--json"))] == list(LOSSES.names)


@pytest.mark.parametrize("name", LOSSES.names)
def test_show_tells_all_there_is(name):
    entry = LOSSES.get(name)
    text = " ".join(output("show", name).split())
    for part in (entry.summary, entry.formula, entry.paper, entry.avoid, *(param.name for param in entry.params)):
        assert part in text
    described = json.loads(output("show", name, "--json"))
    assert described["formula"] == entry.formula
    assert {param["name"]: param["default"] for param in described["params"]} == {
        param.name: param.default for param in entry.params
    }


def test_show_alias():
    assert "ohem is short for ce(ohem=true)" in output("show", "ohem")


def test_unknown_name():
    with pytest.raises(ProveError, match="Did you mean 'lovasz'"):
        output("show", "lovas")


def test_commands_do_not_import_torch():
    code = "import sys, prove.cli.losses as m; m.app(['list'], standalone_mode=False); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode == 0
