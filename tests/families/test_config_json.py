"""What config.json means, key by key, and what is refused with the key's name: facts of transformers 4.48 and 5.23."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.families.cases import CLASSES, LINEAR, LLAMA3, MODELS, config
from trainer.config.groups.model import ModelConfig, RopeScalingConfig
from trainer.errors import ConfigError
from trainer.pretrained.config_json import config_json, dtype_of, read_config

OLD = {key: value for key, value in LINEAR.items() if key != "rope_theta"}


def values(family: str, name: str, **changes: Any) -> dict[str, Any]:
    """A config.json as transformers 4 wrote it, but for these; ... takes a key away."""
    found = {k: v for k, v in config(family, name).to_dict().items() if k not in ("rope_parameters", "layer_types")}
    found.update(changes)
    return {key: value for key, value in found.items() if value is not ...}


def fields(family: str, name: str, **changes: Any) -> dict[str, Any]:
    return read_config(values(family, name, **changes))[1]


def refused(source: Any) -> str:
    with pytest.raises(ConfigError) as raised:
        read_config(source)
    (problem,) = raised.value.problems
    return str(problem)


def test_each_form_of_rope_is_read_alone() -> None:
    assert fields("llama", "llama 1")["rope_theta"] == 10000.0
    assert fields("llama", "llama 1", rope_theta=5e5)["rope_theta"] == 5e5
    old = fields("llama", "llama 1", rope_theta=10000, rope_scaling=OLD)
    new = fields("llama", "llama 1", rope_parameters=LINEAR)
    both = fields("llama", "llama 1", rope_theta=10000.0, rope_scaling=OLD, rope_parameters=LINEAR)
    typed = fields("llama", "llama 1", rope_scaling={"type": "linear", "factor": 4})
    assert old == new == both == typed
    assert new["rope_scaling"] == RopeScalingConfig("linear", 4.0)
    plain = fields("llama", "llama 1", rope_parameters={"rope_type": "default", "rope_theta": 5e5}, rope_theta=5e5)
    assert (plain["rope_theta"], plain["rope_scaling"]) == (5e5, RopeScalingConfig())


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"rope_parameters": LINEAR, "rope_theta": 5e5}, ["rope_parameters.rope_theta", "10000", "to rope_theta (500"]),
        (
            {"rope_parameters": LINEAR, "rope_scaling": {**OLD, "factor": 2.0}},
            ["rope_parameters", "equal to rope_scaling", "factor 4.0", "factor 2.0"],
        ),
        ({"rope_parameters": LINEAR, "rope_scaling": None}, ["rope_parameters", "equal to rope_scaling (none)"]),
        ({"rope_scaling": {"rope_type": "linear", "type": "yarn", "factor": 2.0}}, ["rope_scaling.type"]),
        ({"rope_scaling": {"rope_type": "longrope", "factor": 2.0}}, ["rope_scaling.rope_type", "'longrope'"]),
        ({"rope_scaling": {"rope_type": "linear"}}, ["rope_scaling.factor", "has this key"]),
        ({"rope_scaling": [4.0]}, ["rope_scaling", "an object"]),
        ({"rope_parameters": {"full_attention": LINEAR}}, ["rope_parameters", "each kind of layer"]),
        ({"partial_rotary_factor": 0.5}, ["partial_rotary_factor", "whole heads"]),
        (
            {"rope_scaling": {**LLAMA3, "rope_theta": 10000.0}, "original_max_position_embeddings": 64},
            ["rope_scaling.original_max_position_embeddings", "equal to original_max_position_embeddings (64)"],
        ),
        (
            {"rope_scaling": {"type": "dynamic", "factor": 2.0, "original_max_position_embeddings": 64}},
            ["max_position_embeddings", "128", "equal to rope_scaling.original_max_position_embeddings (64)"],
        ),
    ],
)
def test_a_rope_that_versions_read_differently_is_refused(changes: dict[str, Any], words: list[str]) -> None:
    said = refused(values("llama", "llama 1", **changes))
    assert all(word in said for word in words), said


def test_yarn_without_an_original_context_means_the_whole_one() -> None:
    scaling = {"rope_type": "yarn", "factor": 4.0}
    found = fields("qwen2", "grouped", rope_scaling=scaling)
    assert found["rope_scaling"].original_max_positions == 128
    assert found["max_positions"] == 512
    implied = {"rope_type": "yarn", "factor": None, "original_max_position_embeddings": 32}
    assert fields("qwen2", "grouped", rope_scaling=implied)["rope_scaling"].factor == 4.0


def test_yarns_mscale_is_written_as_the_factor_that_4_48_reads() -> None:
    scaling = RopeScalingConfig("yarn", 40.0, 32, mscale=0.7, mscale_all_dim=1.0)
    model = ModelConfig(rope_scaling=scaling, max_positions=1280)
    written = config_json(model, "float32")["rope_scaling"]
    assert written["attention_factor"] == pytest.approx(1.2582 / 1.3689, rel=1e-4)
    assert read_config(config_json(model, "float32"))[1]["rope_scaling"] == scaling


def test_both_forms_of_rope_and_dtype_are_written_and_tying_always() -> None:
    written = config_json(ModelConfig(), "bfloat16", {"bos_token_id": 1})
    assert written["rope_parameters"] == {"rope_type": "default", "rope_theta": 10000.0}
    assert (written["rope_theta"], written["rope_scaling"]) == (10000.0, None)
    assert written["dtype"] == written["torch_dtype"] == "bfloat16"
    assert written["tie_word_embeddings"] is False
    assert written["bos_token_id"] == 1


def test_dtype_has_two_names() -> None:
    assert dtype_of({}) is None
    assert dtype_of({"torch_dtype": "torch.float16"}) == dtype_of({"dtype": "float16", "torch_dtype": "float16"})
    said = refused(values("llama", "llama 1", dtype="bfloat16", torch_dtype="float32"))
    assert "dtype = 'bfloat16'" in said
    assert "torch_dtype (float32)" in said


@pytest.mark.parametrize(("family", "models"), MODELS.items(), ids=list(MODELS))
def test_an_absent_tying_key_means_what_transformers_takes_it_for(family: str, models: dict[str, Any]) -> None:
    said = values(family, next(iter(models)), tie_word_embeddings=...)
    assert read_config(said)[1]["tied"] is CLASSES[family][0].from_dict(said).tie_word_embeddings
    assert read_config(said)[1]["tied"] is (family in ("falcon", "gpt2"))
    for tied in (True, False):
        assert read_config({**said, "tie_word_embeddings": tied})[1]["tied"] is tied


def test_an_absent_window_is_mistrals_own() -> None:
    assert fields("mistral", "window", sliding_window=...)["sliding_window"] == 4096
    assert fields("mistral", "window", sliding_window=None)["sliding_window"] is None


def test_a_mistral_whose_layers_differ_is_not_mistral() -> None:
    """transformers 5 reads it as Ministral."""
    kinds = ["sliding_attention"] * 2
    assert fields("mistral", "window", layer_types=kinds)["sliding_window"] == 7
    assert (
        fields("mistral", "window", sliding_window=None, layer_types=["full_attention"] * 2)["sliding_window"] is None
    )
    said = refused(values("mistral", "window", layer_types=["full_attention", "sliding_attention"]))
    assert "layer_types" in said
    assert "a window in layers from 0 on" in said


def test_qwens_first_layers_look_at_everything() -> None:
    windowed = {"use_sliding_window": True, "sliding_window": 8, "num_hidden_layers": 3}
    found = fields("qwen2", "grouped", **windowed, max_window_layers=2)
    assert (found["sliding_window"], found["full_attention_layers"]) == (8, 2)
    for unused in ({"use_sliding_window": False}, {"sliding_window": None}, {"max_window_layers": 3}):
        found = fields("qwen2", "grouped", **{**windowed, "max_window_layers": 2, **unused})
        assert (found["sliding_window"], found["full_attention_layers"]) == (None, 0)
    kinds = ["sliding_attention", "full_attention", "sliding_attention"]
    said = refused(values("qwen2", "grouped", **windowed, max_window_layers=2, layer_types=kinds))
    assert "layer_types" in said
    assert "a window in layers from 2 on" in said


def test_qwen3s_heads_are_128_where_nothing_is_said() -> None:
    assert fields("qwen3", "tied", head_dim=...)["head_dim"] == 128
    assert fields("qwen2", "grouped", head_dim=...)["head_dim"] is None


@pytest.mark.parametrize(
    ("family", "name", "changes", "words"),
    [
        ("llama", "llama 1", {"hidden_act": "gelu"}, ["hidden_act", "silu"]),
        ("llama", "llama 1", {"hidden_size": ...}, ["hidden_size"]),
        ("llama", "llama 1", {"hidden_size": "32"}, ["hidden_size = '32'", "whole number"]),
        ("llama", "llama 1", {"hidden_size": True}, ["hidden_size", "whole number"]),
        (
            "llama",
            "llama 1",
            {"num_attention_heads": 5, "num_key_value_heads": 5, "head_dim": ...},
            ["num_attention_heads", "divides hidden_size"],
        ),
        ("llama", "grouped", {"num_key_value_heads": 3}, ["num_key_value_heads", "divides num_attention_heads"]),
        ("llama", "llama 1", {"rms_norm_eps": 0}, ["rms_norm_eps"]),
        ("llama", "llama 1", {"attention_bias": "no"}, ["attention_bias", "true or false"]),
        ("llama", "llama 1", {"model_type": "mixtral"}, ["model_type = 'mixtral'", "one of: llama, mistral"]),
        ("llama", "llama 1", {"model_type": "RefinedWebModel"}, ["model_type", "newer transformers"]),
        ("llama", "llama 1", {"model_type": ["llama"]}, ["model_type"]),
        (
            "llama",
            "llama 1",
            {"architectures": ["LlamaForSequenceClassification"]},
            ["architectures", "LlamaForCausalLM"],
        ),
        ("llama", "llama 1", {"model_type": ..., "architectures": ...}, ["model_type"]),
        ("llama", "llama 1", {"quantization_config": {"quant_method": "gptq"}}, ["quantization_config = 'gptq'"]),
        ("falcon", "7b", {"alibi": True}, ["alibi", "false"]),
        ("falcon", "40b", {"parallel_attn": False}, ["parallel_attn"]),
        ("falcon", "40b", {"num_ln_in_parallel_attn": 3}, ["num_ln_in_parallel_attn"]),
        ("falcon", "7b", {"num_ln_in_parallel_attn": 2}, ["num_ln_in_parallel_attn"]),
        ("falcon", "old, multi-head", {"num_kv_heads": 2}, ["num_kv_heads", "multi_query"]),
        ("falcon", "7b", {"activation": "relu"}, ["activation", "gelu"]),
        ("gpt2", "gpt2", {"scale_attn_weights": False}, ["scale_attn_weights", "true"]),
        ("gpt2", "gpt2", {"scale_attn_by_inverse_layer_idx": True}, ["scale_attn_by_inverse_layer_idx"]),
        ("gpt2", "gpt2", {"add_cross_attention": True}, ["add_cross_attention"]),
        ("gpt2", "gpt2", {"activation_function": "relu"}, ["activation_function", "gelu_new"]),
    ],
)
def test_what_the_decoder_does_not_compute_is_refused(
    family: str, name: str, changes: dict[str, Any], words: list[str]
) -> None:
    said = refused(values(family, name, **changes))
    assert all(word in said for word in [*words, "remedy"]), said


def test_multi_query_has_one_key_value_head_whatever_else_is_said() -> None:
    assert fields("falcon", "7b", num_kv_heads=4)["kv_heads"] == 1


def test_an_architecture_stands_in_for_the_type() -> None:
    assert read_config(values("gpt2", "gpt2", model_type=...))[0] == "gpt2"


def test_problems_of_a_file_name_the_file(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    assert f"{path} = 'missing'" in refused(tmp_path)
    path.write_text("{")
    assert f"{path} =" in refused(tmp_path)
    path.write_text("[]")
    assert "an object" in refused(tmp_path)
    path.write_text(json.dumps(values("falcon", "7b", alibi=True)))
    assert f"{path}: alibi" in refused(tmp_path)
    path.write_text(json.dumps(values("falcon", "7b")))
    assert read_config(path) == read_config(tmp_path)


def test_a_model_outside_its_format_is_not_written() -> None:
    with pytest.raises(ConfigError, match=r"model\.qk_norm"):
        config_json(ModelConfig(qk_norm="head"), "float32")
    with pytest.raises(ConfigError, match=r"model\.family"):
        config_json(ModelConfig(family="my.module:family"), "float32")
