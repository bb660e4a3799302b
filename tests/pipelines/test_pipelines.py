"""What every file of pipelines/ owes to diffusers and to a Hub repo. A new file is tested because it is there."""

import inspect
import re
from pathlib import Path

import diffusers
import pytest
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from stock_python import link_packages, run_stock_python
from tiny import FACTORIES
from travelling import PIPELINES, TOP, load_alone

TRAVEL = """
import json, sys
from pathlib import Path

import numpy as np
import torch
from diffusers import DiffusionPipeline
from tiny import make
from travelling import load_alone

file, folder = map(Path, sys.argv[1:3])
pipe, call = make(file.stem, getattr(load_alone(file), sys.argv[3]))
pipe.set_progress_bar_config(disable=True)

def same(a, b):  # the memory that weights are loaded into may choose other kernels
    arrays = isinstance(a, np.ndarray | torch.Tensor)
    np.testing.assert_allclose(a, b, atol=1e-5) if arrays else np.testing.assert_equal(a, b)

made, *_ = pipe(**call, return_dict=False)
same(made, pipe(**call, return_dict=True)[0])
pipe.save_pretrained(folder / "saved")
for k, source in enumerate(("saved", "again")):
    index = json.loads((folder / source / "model_index.json").read_text())
    (own,) = (path.stem for path in (folder / source).glob(f"{file.stem}_*.py"))
    named = {} if isinstance(index["_class_name"], list) else {"custom_pipeline": own}  # a stock form, with it beside
    loaded = DiffusionPipeline.from_pretrained(folder / source, trust_remote_code=True, **named)
    assert type(loaded).__name__ == type(pipe).__name__, type(loaded)
    assert type(loaded).__module__.startswith("diffusers_modules."), type(loaded).__module__
    loaded.set_progress_bar_config(disable=True)
    same(made, loaded(**call, return_dict=False)[0])
    loaded.save_pretrained(folder / ("again", "third")[k])
assert not any(name.split(".")[0] == "logsnr" for name in sys.modules)
"""

files = pytest.mark.parametrize("file", PIPELINES, ids=lambda file: file.stem)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Packages of a process that has what a pipeline may import and nothing of ours."""
    return link_packages(tmp_path_factory.mktemp("site"), "torch", "diffusers", "transformers")


def pipeline_of(file: Path) -> type[DiffusionPipeline]:
    """The one pipeline that a file defines."""
    own = [c for c in vars(load_alone(file)).values() if inspect.isclass(c) and c.__module__.endswith(file.stem)]
    found = [c for c in own if issubclass(c, DiffusionPipeline)]
    assert len(found) == 1, f"{file.name} must define one DiffusionPipeline, and defines {found}"
    return found[0]


def parameters(function: object) -> set[str]:
    return set(inspect.signature(function).parameters) - {"self", "return_dict"}  # type: ignore[arg-type]


def test_the_folder_holds_pipelines_and_none_is_without_a_tiny_one() -> None:
    assert PIPELINES
    stems = {file.stem for file in PIPELINES}
    assert stems == set(FACTORIES), (
        f"{sorted(stems ^ set(FACTORIES))}: each file of pipelines/ has an entry under its stem in FACTORIES of "
        "tests/pipelines/tiny.py. Add there a function that makes a tiny pipeline of the class that it is given, and "
        "the arguments of a call that samples; take out what has no file."
    )


@files
def test_defines_one_pipeline_of_a_name_that_stock_does_not_have(file: Path) -> None:
    assert not hasattr(diffusers, pipeline_of(file).__name__)


@files
def test_each_argument_is_documented(file: Path) -> None:
    pipeline = pipeline_of(file)
    for function, text in ((pipeline.__init__, pipeline.__doc__), (pipeline.__call__, pipeline.__call__.__doc__)):
        documented = set(re.findall(r"\w+", text or ""))
        assert parameters(function) <= documented, f"{file.name}: {parameters(function) - documented}"


@files
def test_travels(file: Path, site: Path, tmp_path: Path) -> None:
    """Made, saved, loaded again as remote code and sampled, in a process that knows nothing of ours."""
    variables = {
        "PYTHONPATH": f"{site}:{TOP / 'tests' / 'pipelines'}:{TOP / 'tests'}",
        "HF_HOME": str(tmp_path / "home"),
        "HF_HUB_OFFLINE": "1",
    }
    name = pipeline_of(file).__name__
    run_stock_python(site, TRAVEL, file, tmp_path, name, cwd=tmp_path, variables=variables)
