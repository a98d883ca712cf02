"""Reading, checking, printing and comparing configs."""

from __future__ import annotations

import pytest
from google.protobuf import text_format

from cmt import config
from cmt.errors import InputError
from cmt.protos import experiment_pb2, model_pb2


def parse(text: str, *overrides: str) -> experiment_pb2.ExperimentConfig:
    return config.parse_experiment(text, "here/run.textproto", overrides)


def message_of(text: str, *overrides: str) -> str:
    with pytest.raises(InputError) as caught:
        parse(text, *overrides)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_every_packaged_config_loads_and_says_what_it_is():
    names = config.available_configs()
    assert {"scenes/tiny", "coco/cmt_deeplab_axial_r50_1281"} <= set(names)
    for name in names:
        assert config.load_experiment(name).name == name.rsplit("/", 1)[1]


def test_every_config_opens_with_command_hardware_and_expectation(checkout):
    for path in sorted(checkout.glob("configs/**/*.textproto")):
        head = path.read_text().split("\n\n")[0]
        for word in ("Command:", "Hardware:", "Expected:"):
            assert word in head, f"{path}: no {word}"


def test_the_full_size_config_is_the_papers():
    full = config.load_experiment("coco/cmt_deeplab_axial_r50_1281")
    assert (full.data.crop_height_pixels, full.data.crop_width_pixels) == (1281, 1281)
    assert (full.trainer.global_batch_size, full.trainer.steps) == (64, 100_000)
    assert full.trainer.learning_rate.warmup_steps == 5000
    assert full.model.num_classes == 133
    changed = {path for path, *_ in config.diff(full, parse(""))}
    assert changed == {
        "name",
        "data.train.tfrecords",
        "data.validation.tfrecords",
        "data.crop_height_pixels",
        "data.crop_width_pixels",
        "data.categories",
        "model.recompute.bottleneck_blocks",
        "model.recompute.axial_blocks",
        "model.recompute.transformer_layers",
    }


def test_name_is_the_stem_unless_given():
    assert parse("").name == "run"
    assert parse('name: "other"').name == "other"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "model {\n  num_clases: 3\n}",
            "here/run.textproto:2:3: ModelConfig has no field 'num_clases';"
            " did you mean 'num_classes'?",
        ),
        (
            "num_centers: 3",
            "here/run.textproto:1:1: ExperimentConfig has no field 'num_centers';"
            " did you mean 'model.num_centers'?",
        ),
        (
            "export {\n  zzz: 3\n}",
            "here/run.textproto:2:3: ExportConfig has no field 'zzz'; choose from:"
            " version, warmup_requests, score_tolerance",
        ),
        (
            "# head\n\nmodel { num_classes: 1.5 }",
            "here/run.textproto:3:22: 'model.num_classes' must be a whole number of"
            " 32 bits; got 1.5",
        ),
        (
            "model { num_classes: 99999999999 }",
            "here/run.textproto:1:22: 'model.num_classes' must be a whole number of"
            " 32 bits; got 99999999999",
        ),
        (
            "model { location { enabled: no } }",
            "here/run.textproto:1:29: 'model.location.enabled' must be true or false;"
            " got no",
        ),
        (
            "loss { layer_weight: heavy }",
            "here/run.textproto:1:22: 'loss.layer_weight' must be a number; got heavy",
        ),
        (
            "name: tiny",
            "here/run.textproto:1:7: 'name' must be text in quotes, such as \"a\";"
            " got tiny",
        ),
        (
            "evaluation { merge: MASKWISE }",
            "here/run.textproto:1:21: 'evaluation.merge' must be one of MASK_WISE,"
            " PIXEL_WISE; got MASKWISE; did you mean MASK_WISE?",
        ),
        (
            "evaluation { merge: MERGE_UNSPECIFIED }",
            "here/run.textproto:1:14: evaluation.merge must be one of MASK_WISE,"
            " PIXEL_WISE; got MERGE_UNSPECIFIED",
        ),
        (
            "model {\n  num_classes: 0 }",
            "here/run.textproto:2:3: model.num_classes must be at least 1; got 0",
        ),
        (
            "model { num_classes: 256 }",
            "here/run.textproto:1:9: model.num_classes must be at most 255; got 256",
        ),
        (
            "trainer { learning_rate { base: 0 } }",
            "here/run.textproto:1:27: trainer.learning_rate.base must be above 0;"
            " got 0.0",
        ),
        (
            "trainer { learning_rate { base: inf } }",
            "here/run.textproto:1:27: trainer.learning_rate.base must be finite;"
            " got inf",
        ),
        (
            "data { crop_width_pixels: 640 }",
            "here/run.textproto:1:8: data.crop_width_pixels must be a multiple of 16"
            " plus 1, such as 625 or 641; got 640",
        ),
    ],
)
def test_wrong_fields_and_values_name_place_rule_and_fix(text, expected):
    assert message_of(text) == expected


@pytest.mark.parametrize(
    ("text", "place", "word"),
    [
        ("model {", "run.textproto", "add '}'"),
        ("}", "run.textproto:1:1", "}"),
        ("model 3", "run.textproto:1:7", "expected {"),
        ("name 'a'", "run.textproto:1:6", "expected :"),
        ("model {}\nmodel {}", "run.textproto:2:1", "already set"),
        ("name: 'a'\nname: 'b'", "run.textproto:2:1", "already set"),
        ('name: "a', "run.textproto:1:7", "name"),
        ("model { [a.b]: 3 }", "run.textproto:1:9", "["),
        ("model { num_classes: ", "run.textproto:1", "nothing"),
        ("\x00\x01", "run.textproto:1:1", "name of a field"),
    ],
)
def test_wrong_syntax_names_the_place(text, place, word):
    message = message_of(text)
    assert message.startswith(f"here/{place}:")
    assert word in message


def test_all_ways_to_write_a_textproto_are_read():
    wanted = parse('name: "ab" model { num_classes: 7 norm { momentum: 0.5 } }')
    assert parse(
        "model: <num_classes: 7; norm {momentum: .5f},>\nname: 'a' 'b' # x"
    ) == (wanted)


def test_a_limit_written_in_decimals_holds_for_32_bit_floats():
    text = "model { backbone { drop_path_rate: 0.99 } }"
    assert parse(text).model.backbone.drop_path_rate == pytest.approx(0.99)


def test_overrides_follow_the_file_in_order():
    experiment = parse(
        "trainer { steps: 9000 }",
        "trainer.steps=7000",
        "trainer.steps = 8000",
        "model.location.enabled=false",
        "data.train.tfrecords=a b/*.tfrecord",
        'data.validation.tfrecords="c \\"d\\""',
        "evaluation.merge=PIXEL_WISE",
        "loss.layer_weight=5e-1",
    )
    assert experiment.trainer.steps == 8000
    assert experiment.model.location.enabled is False
    assert experiment.data.train.tfrecords == "a b/*.tfrecord"
    assert experiment.data.validation.tfrecords == 'c "d"'
    assert config.to_text(experiment).count("merge: PIXEL_WISE") == 1
    assert experiment.loss.layer_weight == 0.5


@pytest.mark.parametrize(
    ("override", "word"),
    [
        ("trainer.step=64", "did you mean 'steps'?"),
        ("num_centers=64", "did you mean 'model.num_centers'?"),
        ("trainr.steps=64", "did you mean 'trainer'?"),
        ("trainer.steps", "expected path=value"),
        ("=3", "expected path=value"),
        ("trainer.steps=", "whole number of 32 bits; got nothing"),
        ("trainer.steps=6 4", "whole number of 32 bits; got 6 4"),
        ("trainer.optimizer.kind=adamw", "did you mean ADAMW?"),
        ("model.norm={}", "set one of: model.norm.momentum"),
        ("model.num_centers.x=3", "'num_centers' is a value"),
        ("data.train.tfrecords='a' x", "must be text in quotes"),
        ("trainer.steps=0", "trainer.steps must be at least 1; got 0"),
    ],
)
def test_a_wrong_override_is_named(override, word):
    message = message_of("", override)
    assert message.startswith(f"--set {override}: ")
    assert word in message


@pytest.mark.parametrize(
    ("text", "overrides", "words"),
    [
        (
            "data {\n max_masks: 64 }",
            ["model.num_centers=32"],
            [
                "data.max_masks = 64 (here/run.textproto:2:2) must be at most",
                "model.num_centers = 32 (--set model.num_centers=32)",
            ],
        ),
        (
            "",
            ["model.backbone.stage4_channels=130"],
            [
                "stage4_channels = 130",
                "must be divisible by",
                "num_heads = 8 (default)",
            ],
        ),
        ("", ["model.backbone.stage5_channels=130"], ["stage5_channels = 130"]),
        (
            "",
            ["model.transformer.key_channels=130"],
            ["key_channels = 130", "num_heads"],
        ),
        (
            "",
            ["model.transformer.value_channels=9"],
            ["value_channels = 9", "num_heads"],
        ),
        (
            "data { augmentation { min_scale: 2 max_scale: 1 } }",
            [],
            ["min_scale = 2.0", "at most", "max_scale = 1.0"],
        ),
        (
            "trainer { steps: 5000 }",
            [],
            ["warmup_steps = 5000 (default)", "below", "trainer.steps = 5000"],
        ),
        *(
            ("", [f"{scaled}.min_scale=2"], ["min_scale = 2.0", "must be at most"])
            for scaled in ("data.augmentation", "data.augmentation.copy_paste")
        ),
        (
            "",
            ["trainer.evaluate_every_steps=5"],
            ["evaluate_every_steps = 5", "data.validation.tfrecords is not set"],
        ),
        (
            "",
            ["trainer.optimizer.weight_decay=0.1"],
            ["weight_decay = 0.1", "kind = ADAM (default)", "ADAMW"],
        ),
    ],
)
def test_values_that_do_not_fit_together(text, overrides, words):
    message = message_of(text, *overrides)
    for word in words:
        assert word in message


def test_the_batch_is_checked_once_the_replicas_are_known():
    experiment = parse("trainer { global_batch_size: 64 }")
    config.check(experiment, num_replicas=8)
    with pytest.raises(InputError) as caught:
        config.check(experiment, num_replicas=7)
    assert str(caught.value) == (
        "trainer.global_batch_size = 64 must be divisible by the number of replicas, 7;"
        " use 63 or 70"
    )
    experiment.trainer.global_batch_size = 3
    with pytest.raises(InputError, match="use 4 or 8$"):
        config.check(experiment, num_replicas=4)


def test_resolved_text_is_complete_and_parses_back():
    experiment = parse('model { num_classes: 7 } data { train { tfrecords: "ä" } }')
    text = config.to_text(experiment)
    again = experiment_pb2.ExperimentConfig()
    text_format.Parse(text, again)
    assert again == experiment
    assert config.parse_experiment(text, "else/where.textproto") == experiment
    lines = [line.strip() for line in text.splitlines()]
    assert "num_classes: 7" in lines
    assert "epsilon: 1e-07" in lines
    assert 'tfrecords: "ä"' in lines
    assert "# manifest: not set" in lines
    positions = [
        text.index(word) for word in ("model {", "data {", "loss {", "export {")
    ]
    assert positions == sorted(positions)


def test_an_unresolved_message_prints_the_same():
    assert config.to_text(
        experiment_pb2.ExperimentConfig(name="run")
    ) == config.to_text(parse(""))


def test_diff_lists_what_differs_in_textproto_syntax():
    a = parse("", "model.norm.momentum=0.9", "data.train.tfrecords=x")
    b = parse("", "evaluation.merge=PIXEL_WISE")
    assert config.diff(a, b) == [
        ("model.norm.momentum", "0.9", "0.99"),
        ("data.train.tfrecords", '"x"', None),
        ("evaluation.merge", "MASK_WISE", "PIXEL_WISE"),
    ]
    assert config.diff(a, a) == []


def test_a_path_goes_before_a_name(tmp_path, monkeypatch):
    (tmp_path / "scenes").mkdir()
    (tmp_path / "scenes" / "tiny").write_text("model { num_classes: 3 }")
    assert config.load_experiment("scenes/tiny").model.num_classes != 3
    monkeypatch.chdir(tmp_path)
    assert config.load_experiment("scenes/tiny").model.num_classes == 3
    assert config.load_experiment(tmp_path / "scenes" / "tiny").name == "tiny"


def test_a_config_that_is_not_there(tmp_path):
    names = config.available_configs()
    for wrong, words in (
        ("scenes/tny", "did you mean 'scenes/tiny'? "),
        # Below the cutoff of a good guess; three, not all.
        ("coco/nope", "the nearest are 'coco/"),
        (
            "coco/cmt_deeplab_axial_r50_1282",
            "mean 'coco/cmt_deeplab_axial_r50_1281' or",
        ),
    ):
        with pytest.raises(InputError) as error:
            config.load_experiment(wrong)
        (line,) = str(error.value).splitlines()
        assert line.startswith(f"no config '{wrong}': neither a file nor one of the ")
        assert words in line
        assert line.endswith(f" cmt.list_models() names all {len(names)}")
        assert 1 <= sum(f"'{name}'" in line for name in names) <= 3
        assert len(line) < 250
    with pytest.raises(InputError, match="name of a config is empty"):
        config.load_experiment("")
    with pytest.raises(InputError, match="is a folder; .*config.textproto"):
        config.load_experiment(tmp_path)
    (tmp_path / "grey.png").write_bytes(b"\x89PNG\xff")
    with pytest.raises(InputError, match="UTF-8"):
        config.load_experiment(tmp_path / "grey.png")


def test_a_model_config_comes_from_a_name_a_path_or_a_message(tmp_path):
    by_name = config.read_model_config("coco/cmt_deeplab_axial_r50_641")
    path = tmp_path / "x.textproto"
    path.write_text("model { num_centers: 128 }")
    assert config.read_model_config(path) == by_name
    message = model_pb2.ModelConfig(num_classes=5, num_centers=3)
    assert config.read_model_config(message) == message
    whole = experiment_pb2.ExperimentConfig(model=message)
    assert config.read_model_config(whole) == message
    with pytest.raises(InputError, match="num_centers must be at least 1; got 0"):
        config.read_model_config(model_pb2.ModelConfig(num_centers=0))
    wrong = model_pb2.ModelConfig()
    wrong.transformer.num_heads = 7
    with pytest.raises(InputError, match="key_channels = 128 must be divisible by"):
        config.read_model_config(wrong)
    with pytest.raises(InputError, match="got int"):
        config.read_model_config(3)
