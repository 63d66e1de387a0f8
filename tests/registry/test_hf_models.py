"""Models of transformers come back as they were registered, and from their folder alone."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import pytest

import mlopskit
from mlopskit.errors import InvalidModel, UntrustedModel
from mlopskit.registry.flavors import hf
from mlopskit.registry.flavors.hf_settings import check_settings
from mlopskit.registry.local import LocalRegistry

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from mlopskit.registry import Registry

pytest.importorskip("safetensors")
torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

pytestmark = pytest.mark.filterwarnings("ignore")  # The libraries warn about one another.

SIZES = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
WORDS = {"pad_token_id": 1, "bos_token_id": 1, "eos_token_id": 1, "decoder_start_token_id": 1}
SPEECH = {
    **dict.fromkeys(("encoder_layers", "decoder_layers"), 1),
    **dict.fromkeys(("encoder_attention_heads", "decoder_attention_heads"), 2),
    **dict.fromkeys(("d_model", "encoder_ffn_dim", "decoder_ffn_dim", "max_source_positions"), 8),
    **dict.fromkeys(("suppress_tokens", "begin_suppress_tokens")),
}
CONVOLUTIONS = {"conv_dim": (8,) * 7, "num_conv_pos_embedding_groups": 2}
IMAGES = {"image_size": 8, "patch_size": 4, "encoder_stride": 4}
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "GPT2LMHeadModel": ("GPT2Config", {"n_embd": 8, "n_layer": 1, "n_head": 2, "vocab_size": 30}),
    "T5ForConditionalGeneration": (
        "T5Config",
        {"d_model": 8, "d_ff": 8, "d_kv": 4, "num_layers": 1, "num_heads": 2, "vocab_size": 30},
    ),
    "WhisperForConditionalGeneration": (
        "WhisperConfig",
        {**SPEECH, **WORDS, "vocab_size": 30, "max_target_positions": 8},
    ),
    "Wav2Vec2ForCTC": ("Wav2Vec2Config", {**SIZES, **CONVOLUTIONS, "vocab_size": 30}),
    "BertForPreTraining": ("BertConfig", {**SIZES, "vocab_size": 30}),
    "BertForNextSentencePrediction": ("BertConfig", {**SIZES, "vocab_size": 30}),
    "ViTForMaskedImageModeling": ("ViTConfig", {**SIZES, **IMAGES}),
}


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Registry]:
    with LocalRegistry(tmp_path / "registry") as opened:
        yield opened


def made(name: str) -> Any:
    config, sizes = MODELS[name]
    return getattr(transformers, name)(getattr(transformers, config)(**sizes)).eval()


def classifier(**more: Any) -> Any:
    config = transformers.BertConfig(**SIZES, vocab_size=30, **more)
    return transformers.BertForSequenceClassification(config).eval()


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path: Path = tmp_path_factory.mktemp("saved")
    classifier().save_pretrained(path)
    return path


@pytest.fixture
def folder(tmp_path: Path, saved: Path) -> Path:
    """Return a folder with a classifier, as somebody else would write it."""
    return shutil.copytree(saved, tmp_path / "bert")


def rewrite(path: Path, **settings: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **settings}))


def weights(folder: Path) -> dict[str, Any]:
    from safetensors.torch import load_file

    found: dict[str, Any] = load_file(folder / "model.safetensors")
    return found


def reweigh(folder: Path, tensors: dict[str, Any]) -> None:
    from safetensors.torch import save_file

    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


# What comes back.


@pytest.mark.parametrize("name", MODELS)
def test_a_model_comes_back_with_its_class_and_every_weight(registry: Registry, name: str) -> None:
    model = made(name)
    registry.register("model", model)
    loaded = registry.load("model", 1)
    assert type(loaded) is type(model)
    given, found = model.state_dict(), loaded.state_dict()
    assert given.keys() == found.keys()
    assert all(torch.equal(given[key], found[key]) for key in given)


def test_half_precision_comes_back_as_such(registry: Registry) -> None:
    registry.register("model", classifier().half())
    assert {each.dtype for each in registry.load("model", 1).parameters()} == {torch.float16}


def test_a_model_of_somebodys_own_class_is_not_registered(registry: Registry) -> None:
    class Mine(transformers.BertForSequenceClassification):  # type: ignore[misc,name-defined]
        pass

    with pytest.raises(InvalidModel, match=r"'Mine'.*offers no model"):
        registry.register("model", Mine(classifier().config))


def test_a_class_called_like_one_of_transformers_is_not_taken_for_it(registry: Registry) -> None:
    other = type("BertForSequenceClassification", (transformers.BertForMaskedLM,), {})
    with pytest.raises(InvalidModel, match="transformers makes a BertForSequenceClassification"):
        registry.register("model", other(classifier().config))


NAMES = ("os.system", "BertForNothing", "AutoModel", "BertConfig", "PreTrainedModel", "logging")


@pytest.mark.parametrize("trusted", [False, True])
@pytest.mark.parametrize("names", [None, [], [5], "BertModel", *([name] for name in NAMES)])
def test_there_is_no_other_class_than_the_first_named(
    folder: Path, names: Any, trusted: bool
) -> None:
    rewrite(folder / "config.json", architectures=names)
    with pytest.raises(InvalidModel, match=r"'architectures' in|offers no model"):
        hf.load(folder, "the model", trusted=trusted)


def test_settings_of_another_class_are_refused(registry: Registry, folder: Path) -> None:
    rewrite(folder / "config.json", architectures=["GPT2LMHeadModel"])
    registry.register("model", folder)
    with pytest.raises(InvalidModel, match=r"settings of a 'bert'.*GPT2LMHeadModel.*'gpt2'"):
        registry.load("model", 1)


# Weights.


@pytest.mark.parametrize("trusted", [False, True])
def test_missing_weights_are_named_and_not_made_up(
    registry: Registry, folder: Path, trusted: bool
) -> None:
    tensors = weights(folder)
    del tensors["classifier.weight"]
    reweigh(folder, tensors)
    registry.register("model", folder)
    with pytest.raises(InvalidModel, match=r"lacks weights .*: 'classifier.weight'\. "):
        registry.load("model", 1, trusted=trusted)


def test_of_many_missing_weights_a_few_are_named(registry: Registry, folder: Path) -> None:
    tensors = weights(folder)
    reweigh(folder, {key: value for key, value in tensors.items() if "encoder" not in key})
    registry.register("model", folder)
    first = r"'bert\.encoder\.layer\.0\.attention\.output\.LayerNorm\.bias'"
    with pytest.raises(InvalidModel, match=rf"lacks weights .*: {first}, .* and 11 more\. "):
        registry.load("model", 1)


def test_weights_of_another_shape_are_named(registry: Registry, folder: Path) -> None:
    reweigh(folder, {**weights(folder), "classifier.weight": torch.zeros(5, 8)})
    registry.register("model", folder)
    with pytest.raises(InvalidModel, match=r"another shape .*: 'classifier.weight'\. "):
        registry.load("model", 1)


def test_weights_that_are_shared_may_be_missing_in_the_file(tmp_path: Path) -> None:
    model = made("GPT2LMHeadModel")
    model.save_pretrained(tmp_path)
    assert "lm_head.weight" not in weights(tmp_path)
    loaded = hf.load(tmp_path, "the model", trusted=False)
    assert torch.equal(loaded.lm_head.weight, model.transformer.wte.weight)


def test_weights_that_the_class_does_not_have_are_left_out(
    registry: Registry, folder: Path
) -> None:
    reweigh(folder, {**weights(folder), "other.weight": torch.zeros(5)})
    registry.register("model", folder)
    assert "other.weight" not in registry.load("model", 1).state_dict()


def test_nothing_else_lies_beside_the_weights_when_they_are_read(folder: Path) -> None:
    for name in ("mine.py", "pytorch_model.bin", "spk_dict.pt", "tokenizer.json"):
        (folder / name).write_text("{}")
    place = Path(hf.load(folder, "the model", trusted=False).name_or_path)
    assert {path.name for path in place.iterdir()} == {"config.json", "model.safetensors"}


# Settings.

REFUSED: dict[str, dict[str, Any]] = {
    "a kernel": {"attn_implementation": "somebody/payload"},
    "a kernel under its inner name": {"_attn_implementation": "somebody/payload"},
    "a kernel under its innermost name": {"_attn_implementation_internal": "somebody/payload"},
    "a kernel for a part": {"attn_implementation": {"text_config": "somebody/payload@1:f"}},
    "attention that is fetched if missing": {"_attn_implementation": "flash_attention_2"},
    "attention that is no text": {"_attn_implementation": ["sdpa"]},
    "experts of a kernel": {"experts_implementation": "sonicmoe"},
    "kernels": {"use_kernels": True},
    "a mapping of kernels": {"kernel_config": {"kernel_mapping": {"RMSNorm": "a/b:L"}}},
    "a backbone": {"backbone": "resnet50"},
    "a backbone's weights": {"use_pretrained_backbone": True},
    "options of a backbone": {"backbone_kwargs": {"trust_remote_code": True}},
    "options of timm": {"model_args": {"checkpoint_path": "x"}},
    "a model of timm in the Hub": {"model_type": "timm_backbone", "backbone": "hf-hub:a"},
    "code": {"auto_map": {"AutoModel": "mine.Mine"}},
    "another loader": {"quantization_config": {"quant_method": "bitsandbytes"}},
    "another loader under its old name": {"compression_config": {"quant_method": "x"}},
    "several machines": {"distributed_config": {"tp_size": 2}},
    "an adapter": {"base_model_name_or_path": "gpt2"},
    "other settings": {"configuration_files": ["config.4.0.0.json"]},
    "other names": {"attribute_map": {"note": "_attn_implementation"}},
    "rewritten layers": {"fusion_config": {"patch_embeddings": True}},
    "a repository": {"new_in_a_later_version": "somebody/repository"},
    "a path": {"new_in_a_later_version": "/srv/a path"},
    "a path that leads outside": {"transformers_weights": "../x.safetensors"},
    "a page": {"new_in_a_later_version": "https://example.org"},
}


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("case", REFUSED)
def test_settings_that_fetch_or_run_something_need_trust(
    folder: Path, case: str, nested: bool
) -> None:
    settings = REFUSED[case]
    rewrite(folder / "config.json", **({"parts": [{"text": settings}]} if nested else settings))
    key = next(key for key in settings if key != "model_type")
    with pytest.raises(UntrustedModel, match=f"config.json has .*{key}"):
        hf.load(folder, "the model", trusted=False)


def test_settings_of_generation_are_checked_too(registry: Registry, folder: Path) -> None:
    (folder / "generation_config.json").write_text('{"custom_generate": "somebody/code"}')
    registry.register("model", folder)
    with pytest.raises(UntrustedModel, match=r"generation_config\.json has 'custom_generate'"):
        registry.load("model", 1)


def test_settings_are_checked_again_as_transformers_understands_them() -> None:
    config = classifier().config
    check_settings({"encoder": config}, "the model", "configuration")
    config._attn_implementation = "somebody/payload"
    with pytest.raises(UntrustedModel, match="somebody/payload"):
        check_settings({"encoder": config}, "the model", "configuration")


@pytest.mark.skipif(
    transformers.__version__ >= "5", reason="since transformers 5 no model has a backbone fetched"
)
def test_what_a_class_fetches_unless_told_otherwise_needs_trust(folder: Path) -> None:
    names = {"model_type": "detr", "architectures": ["DetrForObjectDetection"]}
    (folder / "config.json").write_text(json.dumps(names))
    with pytest.raises(UntrustedModel, match=r"its defaults has 'use_pretrained_backbone'"):
        hf.load(folder, "the model", trusted=False)


def test_words_and_notes_are_no_addresses(registry: Registry, folder: Path) -> None:
    settings: dict[str, Any] = {
        "_attn_implementation": "sdpa",
        "_attn_implementation_autoset": True,
        "_name_or_path": "somebody/model",
        "id2label": {"0": "n/a", "1": "https://x"},
        "eos_token": "</s>",
        "note": "either and/or both: see the report",
        "placed": "cuda:0",
        "use_pretrained_backbone": False,
        "backbone": None,
        "model_args": {"in_chans": 3},
    }
    rewrite(folder / "config.json", **settings)
    registry.register("model", folder)
    assert registry.load("model", 1).config.note == settings["note"]


def test_an_object_that_would_not_be_loaded_again_is_not_registered(registry: Registry) -> None:
    with pytest.raises(InvalidModel, match=r"'somebody/dataset'.*trusted=True"):
        registry.register("model", classifier(trained_on="somebody/dataset"))


# The network, and code.

LOAD = """
import sys
from pathlib import Path
from mlopskit.registry.flavors import hf
try:
    print(type(hf.load(Path(sys.argv[1]), "the model", trusted=sys.argv[2] == "trusted")).__name__)
except Exception as exc:
    print(type(exc).__name__, exc)
"""


class Hub(BaseHTTPRequestHandler):
    asked: ClassVar[list[str]]

    def do_GET(self) -> None:
        self.asked.append(self.path)
        self.send_error(404)

    do_HEAD = do_GET  # noqa: N815 - its name is how it is found

    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture
def hub() -> Iterator[tuple[str, list[str]]]:
    """Run a Hub without any model, on the loopback interface."""
    Hub.asked = []
    with HTTPServer(("127.0.0.1", 0), Hub) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", Hub.asked
        server.shutdown()
        thread.join()


@pytest.fixture
def load(tmp_path: Path, hub: tuple[str, list[str]]) -> Callable[..., str]:
    """Load a folder in another process, whose Hub is the one above."""

    def run(folder: Path, trust: str = "", package: Path | None = None) -> str:
        paths = str(package or Path(mlopskit.__file__).parent.parent)
        home = {"HF_HOME": str(tmp_path / "home"), "HF_ENDPOINT": hub[0]}
        done = subprocess.run(
            [sys.executable, "-c", LOAD, str(folder), trust],
            env={**os.environ, "PYTHONPATH": paths, **home},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()[-1]

    return run


def weaker(folder: Path, *gates: tuple[str, str, str]) -> Path:
    """Copy mlopskit with gates that are open."""
    shutil.copytree(Path(mlopskit.__file__).parent, folder / "mlopskit")
    for name, gate, open_ in gates:
        path = folder / "mlopskit" / "registry" / "flavors" / name
        text = path.read_text()
        assert gate in text
        path.write_text(text.replace(gate, open_))
    return folder


SETTINGS = ("hf_settings.py", "if _items(settings) is None:", "return\n    if True:")
NETWORK = ("offline.py", "sys.addaudithook(_heard)", "pass")


def test_what_passes_the_settings_is_kept_from_the_network(
    tmp_path: Path, load: Callable[..., str], hub: tuple[str, list[str]]
) -> None:
    settings = {
        "model_type": "detr",
        "architectures": ["DetrForObjectDetection"],
        "backbone": "somebody/payload",
        "use_pretrained_backbone": True,
        "use_timm_backbone": False,
    }
    for name in ("kept", "fetched"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(json.dumps(settings))
        reweigh(tmp_path / name, {"w": torch.ones(2)})

    answer = load(tmp_path / "kept", package=weaker(tmp_path / "one", SETTINGS))
    assert answer.startswith("UntrustedModel")
    assert "it reaches for 127.0.0.1 while it is loaded" in answer
    assert hub[1] == []

    load(tmp_path / "fetched", package=weaker(tmp_path / "none", SETTINGS, NETWORK))
    assert any("somebody/payload" in path for path in hub[1])


OWN = """
import torch
from transformers import BertConfig, PreTrainedModel

class Mine(PreTrainedModel):
    config_class = BertConfig

    def __init__(self, config):
        super().__init__(config)
        self.w = torch.nn.Parameter(torch.zeros(2))
        self.post_init()

    def _init_weights(self, module):
        pass
"""


def test_code_in_the_folder_runs_with_trust_alone(
    folder: Path, load: Callable[..., str], hub: tuple[str, list[str]]
) -> None:
    (folder / "mine.py").write_text(OWN)
    reweigh(folder, {"w": torch.ones(2)})
    code = {"auto_map": {"AutoModel": "mine.Mine"}, "architectures": ["Mine"]}
    rewrite(folder / "config.json", **code)
    assert load(folder, "").startswith("UntrustedModel")
    assert load(folder, "trusted") == "Mine"
    assert hub[1] == []


@pytest.mark.parametrize(
    "settings",
    [{"num_hidden_layers": 10**9}, {"hidden_size": 10**9}, {"vocab_size": 2 * 10**9}],
)
def test_settings_that_the_weights_cannot_fill_are_refused_before_anything_is_built(
    registry: Registry, folder: Path, settings: dict[str, int]
) -> None:
    rewrite(folder / "config.json", **settings)
    registry.register("huge", folder)

    with pytest.raises(InvalidModel, match="tensors"):
        registry.load("huge", 1)
