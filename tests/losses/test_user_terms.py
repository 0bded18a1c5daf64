"""Terms of a user's own: the files, their identity, what they compute, and what is refused."""

import hashlib
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from loss_batches import IGNORE, batch, value_and_gradient

from prove.build.objective import plan_heads, term_configs
from prove.catalog.losses import LOSSES, resolve, short
from prove.catalog.user_terms import USER_TERMS, register_terms, require_sources, terms_of
from prove.errors import ProveError
from prove.losses import Objective, load_terms
from prove.losses.reference import reference
from prove.losses.user_terms import has_reference, main
from prove.spec import LossExpr, parse
from prove.spec.job import Job, ModelRef, TrainSettings

CODE = """
from prove.losses import Pixels, Term


class Roughness(Term):
    name = "roughness"

    def __init__(self, strength: float = 1.0, ignore_index: int = 255) -> None:
        super().__init__(ignore_index)
        self.strength = strength

    def value(self, pixels: Pixels):
        p, m = pixels.probs, pixels.mass
        both = m[..., 1:] * m[..., :-1]
        steps = (p[..., 1:] - p[..., :-1]).square().sum(dim=1)
        return self.strength * (steps * both).sum() / both.sum().clamp(min=1e-12)
"""

YAML = """\
name: roughness
file: roughness.py
class: Roughness
summary: How much the class maps change along rows.
params:
  strength: {default: 1.0, low: 0, doc: "a factor"}
"""


@pytest.fixture(autouse=True)
def _fresh(monkeypatch):
    """Each test starts with the catalogue alone."""
    for registry in (LOSSES, USER_TERMS):
        monkeypatch.setattr(registry, "_entries", dict(registry._entries))


@pytest.fixture
def write(tmp_path):
    """Writes a term's two files; returns the YAML's path."""

    def write(code=CODE, text=YAML, folder="."):
        (tmp_path / folder).mkdir(exist_ok=True)
        (tmp_path / folder / "roughness.py").write_text(code)
        (tmp_path / folder / "roughness.yaml").write_text(text)
        return tmp_path / folder / "roughness.yaml"

    return write


def forget():
    for registry in (LOSSES, USER_TERMS):
        registry._entries.pop("roughness", None)


def roughness(logits, labels, strength):
    """The same in numpy, pixel by pixel."""
    p = np.exp(logits - logits.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    steps = [
        ((p[n, :, i, j + 1] - p[n, :, i, j]) ** 2).sum()
        for n, i, j in np.ndindex(*labels[..., :-1].shape)
        if IGNORE not in labels[n, i, j : j + 2]
    ]
    return strength * np.mean(steps) if steps else 0.0


def test_an_objective_computes_it(write):
    assert load_terms(write()) == ("roughness",)
    logits, labels = batch()
    objective = Objective("ce + 0.3*roughness(strength=2)")
    out = objective(logits, labels)
    expected = roughness(logits.numpy(), labels.numpy(), 2.0)
    assert out.terms["roughness"].item() == pytest.approx(expected, rel=1e-12)
    assert out.total.item() == pytest.approx(out.terms["ce"].item() + 0.3 * expected, rel=1e-12)
    _, gradient = value_and_gradient(lambda z, y: objective(z, y).terms["roughness"], logits, labels)
    ignored = (labels == IGNORE)[:, None].expand_as(gradient)
    assert gradient[ignored].abs().max() == 0
    assert gradient[~ignored].abs().max() > 0
    leaf = logits.requires_grad_()
    assert torch.autograd.gradcheck(lambda z: objective(z, labels).terms["roughness"], (leaf,))


def test_it_gets_its_ignore_index(write):
    load_terms(write())
    logits, labels = batch()
    own = torch.where(labels == IGNORE, 77, labels)
    values = [Objective("roughness", ignore_index=index)(logits, y).total for index, y in ((IGNORE, labels), (77, own))]
    assert values[0] == values[1]


def key(text):
    train = TrainSettings(max_iters=1, batch_size=1, crop_size=(64, 64), lr=0.1, eval_interval=1)
    return Job({"name": "d"}, ModelRef("m"), resolve(parse(text)), train).key


def test_identity_follows_the_code_and_not_the_place(write):
    first = write()
    register_terms([first])
    digest = hashlib.sha256(CODE.encode()).hexdigest()[:12]
    term = resolve(parse("roughness")).primary
    assert dict(term.params) == {"strength": 1.0, "source": f"sha256_{digest}"}
    before = key("ce + roughness")

    forget()
    register_terms([write(folder="elsewhere", text=YAML.replace("How much", "By how much") + "# reworded\n")])
    assert key("ce + roughness") == before
    assert key("ce + roughness(strength=1)") == before
    forget()
    register_terms([write(code=CODE + "# changed\n")])
    assert key("ce + roughness") != before


def test_text_is_short_and_reads_back(write):
    register_terms([write()])
    expr = resolve(parse("0.3*roughness(strength=2) + ce"))
    assert short(expr) == "ce + 0.3*roughness(strength=2)"
    assert resolve(parse(str(expr))) == expr
    assert resolve(expr) == expr


def test_nobody_sets_the_source(write):
    register_terms([write()])
    with pytest.raises(ProveError, match=r"source=other is not sha256_") as caught:
        resolve(parse("ce + roughness(source=other)"))
    assert "PROVE fills it in" in caught.value.hint


def test_registering_again(write):
    term = register_terms([write()])[0]
    assert register_terms([write(), write(folder="copy")]) == (term, term)
    for changed in ({"code": CODE + "\n"}, {"text": YAML.replace("1.0", "2.0")}):
        with pytest.raises(ProveError, match="another term 'roughness' is in use already"):
            register_terms([write(**changed)])


def test_a_job_of_other_code_is_refused(write):
    register_terms([write()])
    expr = resolve(parse("ce + roughness"))
    require_sources(expr)
    forget()
    with pytest.raises(ProveError, match="its files are missing"):
        require_sources(expr)
    register_terms([write(code=CODE + "\n")])
    with pytest.raises(ProveError, match="no longer the code"):
        require_sources(expr)


def test_the_catalogue_executes_nothing(write):
    file = write(code='raise SystemExit("executed")\n' + CODE)
    register_terms([file])
    assert short(resolve(parse("ce + roughness"))) == "ce + roughness"
    with pytest.raises(ProveError, match=r"roughness\.py, line 1: SystemExit: executed"):
        load_terms(file)


def test_what_was_registered_is_what_runs(write):
    register_terms([write()])
    write(code="raise RuntimeError")  # after the hash was taken
    logits, labels = batch()
    assert Objective("roughness")(logits, labels).total.item() == pytest.approx(
        roughness(logits.numpy(), labels.numpy(), 1.0)
    )


REFERENCE = """
    @staticmethod
    def reference(params, logits, labels, ignore_index):
        return logits.sum() * 0 + 7 * params["strength"]
"""


def test_reference_is_its_own_or_itself(write):
    load_terms(write())
    logits, labels = batch(dtype=torch.float32)
    term = resolve(parse("roughness(strength=2)")).primary
    value = reference(term, logits, labels, IGNORE)
    assert value.dtype == torch.float64
    assert value.item() == pytest.approx(roughness(logits.double().numpy(), labels.numpy(), 2.0), rel=1e-12)
    assert (has_reference("roughness"), has_reference("ce")) == (False, True)
    forget()
    load_terms(write(code=CODE + REFERENCE))
    assert has_reference("roughness")
    assert reference(resolve(parse("roughness(strength=2)")).primary, logits, labels, IGNORE).item() == 14.0


@pytest.mark.parametrize("code", [CODE, CODE.replace("self.strength", "self.held")], ids=["plain", "other attribute"])
def test_every_backend_gives_it(write, code, monkeypatch):
    load_terms(write(code=code))
    logits, labels = batch()
    expected = roughness(logits.numpy(), labels.numpy(), 3.0)
    for backend in ("fused", "torch", "reference"):
        out = Objective("ce + roughness(strength=3)", backend=backend)(logits, labels)
        assert out.terms["roughness"].item() == pytest.approx(expected, rel=1e-12), backend
        monkeypatch.setenv("PROVE_LOSSES", backend)
        module = Objective("roughness(strength=3)").modules_by_label["roughness"]
        assert module(logits, labels).item() == pytest.approx(expected, rel=1e-12), backend


def test_a_value_must_be_a_number(write):
    load_terms(write(code=CODE.replace("(steps * both).sum()", "(steps * both)")))
    with pytest.raises(ProveError, match=r"value returned a tensor of shape \[2, 7, 5\]; a term is one number"):
        Objective("ce + roughness")(*batch())


def test_a_reference_must_be_a_number(write):
    load_terms(write(code=CODE + REFERENCE.replace("logits.sum() * 0", "labels")))
    with pytest.raises(ProveError, match=r"reference returned a tensor of shape \[2, 7, 6\]; a term is one number"):
        reference(resolve(parse("roughness")).primary, *batch())


def test_the_config_names_the_definition(write):
    file = write()
    register_terms([file])
    expr = resolve(parse("ce + 0.3*roughness"))
    model = {"decode_head": {"type": "FCNHead", "loss_decode": {"type": "CrossEntropyLoss", "loss_weight": 1.0}}}
    ce, own = term_configs(plan_heads(model, expr)[0], None)
    assert "definition" not in ce
    assert own["definition"] == str(file)
    assert resolve(parse(own["term"])).primary == resolve(parse("0.3*roughness")).primary


def test_what_a_run_folder_keeps_is_the_same_term(write, tmp_path):
    term = register_terms([write(text=YAML.replace("file: roughness.py", "file: ./roughness.py"))])[0]
    assert terms_of(resolve(parse("ce + roughness + 2*roughness(strength=3)"))) == (term,)
    kept = tmp_path / "kept"
    kept.mkdir()
    (kept / "roughness.yaml").write_text(term.text)
    (kept / "roughness.py").write_bytes(term.python)
    assert register_terms([kept / "roughness.yaml"]) == (term,)


FAULTY_YAML = [
    (("summary: ", "sumary: "), r"line 4: Unknown key 'sumary' in the term", "Did you mean 'summary'"),
    (("summary: How much the class maps change along rows.\n", ""), r"'summary' is missing", ""),
    (("low: 0", "lo: 0"), r"line 6: Unknown key 'lo' in params\.strength", "Did you mean 'low'"),
    (("roughness.py", "rough.py"), r"line 2: Can't read .*rough\.py", "relative to this YAML"),
    (("class: Roughness", "class: Ruoghness"), r"line 3: .* defines no class 'Ruoghness'", "Did you mean 'Roughness'"),
    (("name: roughness", "name: dice"), "'dice' is a loss that PROVE knows", "another name"),
    (("name: roughness", "name: ohem"), "'ohem' is a loss that PROVE knows", "another name"),
    (("name: roughness", "name: linear"), "line 1: 'linear' can't name a term", ""),
    (("name: roughness", "name: rough_2"), "line 1: 'rough_2' can't name a term", ""),
    (("name: roughness", "name: 7"), "line 1: name: .*not 7", ""),
    (("1.0", "1e-3"), "it takes a word, but no words are listed", "1.0e-3"),
    (("low: 0", "low: 1e-3"), "not '1e-3'", "1.0e-3"),
    (("low: 0", "low: 3"), r"line 6: params\.strength: the default 1 is not .* a number >= 3", ""),
    (("low: 0", "takes: nubmer"), "Unknown form 'nubmer'", "Did you mean 'number'"),
    (("low: 0", "takes: classes"), "parameter 'classes'", ""),
    (("strength: {", "source: {"), "line 6: A parameter can't be called 'source'", ""),
    (("strength: {", "class_weight: {"), "A parameter can't be called 'class_weight'", ""),
    (("strength: {", "lambda: {"), "'lambda' can't name a parameter", ""),
    (("default: 1.0", "default: {a: 1}"), "is not a value", "true or false"),
    (("  strength: {", "  strength: 3 #{"), r"line 6: params\.strength must be a mapping", "Write params"),
    (("class: ", "name: "), "line 3: 'name' stands twice", ""),
    (("summary: ", "summary: ["), "not valid YAML", ""),
    (("strength: {", "on: {"), "line 6: 'on' is not text to YAML", "quotes"),
    ((YAML, "- a\n- b\n"), "holds no mapping", "A term has the keys name"),
]


@pytest.mark.parametrize(("change", "message", "hint"), FAULTY_YAML, ids=[str(case[0][1])[:30] for case in FAULTY_YAML])
def test_faulty_yaml(write, change, message, hint):
    assert change[0] in YAML
    with pytest.raises(ProveError, match=message) as caught:
        register_terms([write(text=YAML.replace(*change, 1))])
    assert hint in caught.value.hint
    assert "roughness" not in LOSSES


FAULTY_CODE = [
    (("def value(self", "def value((self"), r"roughness\.py, line 12: not valid Python"),
    (("Roughness(Term)", "Roughness"), "Roughness is not a Term"),
    (('name = "roughness"', 'name = "rough"'), "name is 'rough', but .* says 'roughness'"),
    (('name = "roughness"', "pass"), "name is None"),
    (("strength: float = 1.0", "strength: float = 2.0"), r"gives strength the default 2\.0, but .* says 1"),
    (("strength: float = 1.0", "strength: float"), "gives strength no default"),
    (("strength: float = 1.0", "power: float = 1.0"), "takes 'power', which .* does not name"),
    (("strength: float = 1.0, ", "strength: float = 1.0, *, more=1, "), "takes 'more'"),
    (("strength: float = 1.0, ", "strength: float = 1.0, *rest, "), r"takes \*rest"),
    ((", ignore_index: int = 255", ""), "does not take 'ignore_index'"),
    (("super().__init__(ignore_index)", "super().__init__()"), "loses its ignore_index"),
    (("super().__init__(ignore_index)", "pass"), "loses its ignore_index"),
    (("def value", "def worth"), r"has no value\(\)"),
    (("self.strength = strength", "self.strength = strength / 0"), "can't be made: ZeroDivisionError"),
    (("= strength\n", "= strength\n        import torch; self.k = torch.nn.Parameter(torch.ones(1))\n"), "holds 'k'"),
    (("from prove.losses", "import nowhere\nfrom prove.losses"), r"line 2: ModuleNotFoundError"),
    (("class Roughness", "1 / 0\n\nclass Roughness"), r"line 5: ZeroDivisionError"),
    (("    def value", "    def reference(self, logits):\n        pass\n\n    def value"), "reference can't be called"),
]


@pytest.mark.parametrize(("change", "message"), FAULTY_CODE, ids=[str(case[0][1])[:30] for case in FAULTY_CODE])
def test_faulty_code(write, change, message, capsys):
    assert change[0] in CODE
    file = write(code=CODE.replace(*change, 1))
    with pytest.raises(ProveError, match=message):
        load_terms(file)
    if "roughness" in LOSSES:  # a later objective does not get past it either
        with pytest.raises(ProveError, match=message):
            Objective("roughness")
    assert main([str(file)]) == 2
    assert '"message"' in capsys.readouterr().out.splitlines()[-1]


def test_a_whole_number_in_the_yaml_takes_whole_numbers(write):
    text = YAML.replace("1.0", "1")
    with pytest.raises(ProveError, match="says 1") as caught:
        load_terms(write(text=text))
    assert "1.0 any number" in caught.value.hint
    forget()
    load_terms(write(text=text, code=CODE.replace("float = 1.0", "int = 1")))
    with pytest.raises(ProveError, match=r"strength=0\.5 is not a whole number"):
        resolve(parse("roughness(strength=0.5)"))


def test_parameters_of_every_form(write):
    text = YAML.split("params:")[0] + (
        "params:\n"
        "  mode: {default: none, words: [none, hard]}\n"
        "  'on': {default: true}\n"
        "  scale: {default: hard, words: [hard], takes: [number, numbers], low: 0, above_low: true}\n"
        "  classes: {default: all, words: [all], takes: classes}\n"
    )
    code = CODE.replace("strength: float = 1.0", 'mode=None, on=True, scale="hard", classes="all"').replace(
        "self.strength = strength", "self.got = (mode, on, scale, classes); self.strength = 1"
    )
    load_terms(write(code=code, text=text))
    module = Objective("roughness(mode=hard, on=false, scale=[1, 2.5], classes=[2, 0])").modules_by_label["roughness"]
    assert module.got == ("hard", False, (1.0, 2.5), (0, 2))
    assert Objective("roughness").modules_by_label["roughness"].got == (None, True, "hard", "all")
    with pytest.raises(ProveError, match=r"scale=0 is not hard or a number > 0|scale=0 is not"):
        resolve(parse("roughness(scale=0)"))


def test_the_example_of_the_docs(tmp_path):
    text = (Path(__file__).parents[2] / "docs" / "losses.md").read_text()
    section = text.split("## A term of your own")[1]
    for language, name in (("python", "gce.py"), ("yaml", "gce.yaml")):
        (tmp_path / name).write_text(re.search(rf"```{language}\n(.*?)```", section, re.DOTALL)[1])
    load_terms(tmp_path / "gce.yaml")
    logits, labels = batch()
    for q in (0.01, 0.7, 1.0):
        expr = resolve(parse(f"gce(q={q})"))
        p = torch.softmax(logits, 1).gather(1, torch.where(labels == IGNORE, 0, labels)[:, None])[:, 0]
        expected = ((1 - p**q) / q)[labels != IGNORE].mean()
        torch.testing.assert_close(Objective(expr)(logits, labels).total, expected, rtol=1e-12, atol=0)
        torch.testing.assert_close(reference(expr.primary, logits, labels, IGNORE), expected, rtol=1e-12, atol=0)
    near_ce = Objective("ce + gce(q=0.000001)")(logits, labels).terms
    torch.testing.assert_close(near_ce["gce"], near_ce["ce"], rtol=1e-4, atol=0)
    nothing = Objective("gce")(logits, torch.full_like(labels, IGNORE))
    assert nothing.total.item() == 0.0
    with pytest.raises(ProveError, match=r"q=0 is not a number in \(0, 1\]"):
        Objective("gce(q=0)")


def test_an_expression_by_hand_resolves_too(write):
    register_terms([write()])
    assert resolve(LossExpr(parse("roughness").terms)).primary.param("strength") == 1.0
