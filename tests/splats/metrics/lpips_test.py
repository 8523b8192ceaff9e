"""LPIPS: the package's values, the strict file, masks, sizes, its place among the scores."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from splats.config import LPIPS_VARIANTS, MetricsConfig
from splats.data.background import BLACK
from splats.evaluation import score_view, summary
from splats.metrics.lpips import SMALLEST, VARIANTS, Lpips, check_size
from splats.metrics.lpips_weights import LINEAR_DIGESTS, load_lpips, read_weights
from tests.splats.random_lpips import image_pairs, random_weights
from tests.splats.scenes import small_config, small_scene, small_task, task_of
from training.errors import CheckpointError, ConfigError, InputError
from training.weight_files import write_safetensors

FIXTURES = Path(__file__).parents[1] / "fixtures"
DISTANCES = json.loads((FIXTURES / "lpips_distances.json").read_text())


@pytest.fixture(scope="module", autouse=True)
def published():
    """Random channel weights pass for those of v0.1."""
    with pytest.MonkeyPatch.context() as patch:
        for network in LINEAR_DIGESTS:
            rows = [value for name, value in random_weights(network).items() if name[:3] == "lin"]
            digest = hashlib.sha256(b"".join(row.astype("<f4").tobytes() for row in rows))
            patch.setitem(LINEAR_DIGESTS, network, digest.hexdigest())
        yield


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("lpips")
    for network in LINEAR_DIGESTS:
        write_safetensors(folder / f"{network}.safetensors", random_weights(network))
    return {network: folder / f"{network}.safetensors" for network in LINEAR_DIGESTS}


@pytest.fixture(scope="module")
def metrics(files) -> dict[str, Lpips]:
    sizes = np.array([[64, 48]])
    loaded = {}
    for name, (network, _) in VARIANTS.items():
        loaded[name] = load_lpips(MetricsConfig(name, str(files[network])), sizes)
    return loaded


@pytest.mark.parametrize("name", VARIANTS)
def test_distances_are_those_of_the_lpips_package(metrics, name):
    network = VARIANTS[name].network
    found = [metrics[name](*pair) for pair in image_pairs(network)]
    np.testing.assert_allclose(found, DISTANCES[name], rtol=2e-4)
    assert metrics[name](*[image_pairs(network)[0][0]] * 2) < 1e-10


def test_variants_are_told_apart():
    """Fed the other way, VGG gives a third of the value: the names must not be mixed."""
    assert DISTANCES["vgg_unnormalized"][0] < 0.5 * DISTANCES["vgg"][0]
    assert tuple(VARIANTS) == LPIPS_VARIANTS


def test_a_mask_leaves_out_what_is_masked_and_nothing_else(metrics):
    measure = metrics["alex"]
    (true, other), alike, _ = image_pairs("alex")
    everywhere = np.ones(true.shape[:2], bool)
    assert measure(other, true, everywhere) == pytest.approx(measure(other, true), rel=1e-5)
    kept = everywhere.copy()
    kept[:, 40:] = False
    broken = np.where(kept[:, :, None], alike[1], other)
    assert measure(broken, true, kept) == pytest.approx(
        measure(np.where(kept[:, :, None], alike[1], true), true, kept), rel=1e-6
    )
    # The distance of the part that counts is not thinned out by the part that does not.
    half = everywhere.copy()
    half[:, 33:] = False
    assert measure(other, true, half) == pytest.approx(measure(other, true), rel=0.35)


def test_values_outside_of_the_range_are_clipped_as_for_psnr(metrics):
    first, second = image_pairs("alex")[0]
    bright = np.where(first > 0.5, 1.7, first)
    clipped = np.where(first > 0.5, 1.0, first)
    assert metrics["alex"](bright, second) == metrics["alex"](clipped, second)


@pytest.mark.parametrize("name", SMALLEST)
def test_the_smallest_image_works_and_one_pixel_less_is_refused(metrics, name):
    side = SMALLEST[name]
    image = np.random.default_rng(0).uniform(size=(side, side, 3)).astype(np.float32)
    assert 0 < metrics[name](image, image[::-1]) < 10
    for width, height in ((side - 1, 200), (200, side - 1)):
        with pytest.raises(ConfigError, match=f"at least {side}x{side} pixels"):
            check_size(name, width, height)


def edited(network: str, **changes: np.ndarray | None) -> dict[str, np.ndarray]:
    tensors = random_weights(network) | changes
    return {name: value for name, value in tensors.items() if value is not None}


LINEAR = random_weights("alex")["lin2.model.1.weight"]
NOT_FINITE = random_weights("alex")["net.slice1.0.bias"] * np.float32(np.nan)


@pytest.mark.parametrize(
    ("tensors", "said"),
    [
        (edited("vgg"), "holds the LPIPS weights of vgg, but config.metrics.lpips asks for alex"),
        ({"lin6.model.1.weight": LINEAR}, "LPIPS weights of squeeze"),
        (edited("alex", **{"net.slice3.6.bias": None}), "lacks net.slice3.6.bias;"),
        (edited("alex", other=LINEAR), "has other besides;"),
        (edited("alex", **{"net.slice1.0.bias": LINEAR}), r"float32\[1, 384, 1, 1\], expected"),
        (edited("alex", **{"net.slice1.0.bias": NOT_FINITE.astype(np.float16)}), "is float16"),
        (edited("alex", **{"net.slice1.0.bias": NOT_FINITE}), "not finite"),
        (edited("alex", **{"lin2.model.1.weight": 2 * LINEAR}), "not those of LPIPS v0.1"),
        (edited("alex", **{"lins.2.model.1.weight": 2 * LINEAR}), "must be one tensor"),
        (
            edited("alex", **{"scaling_layer.scale": np.ones((1, 3, 1, 1), np.float32)}),
            "scaling_layer.scale is",
        ),
        ({"features.0.weight": LINEAR}, "lacks lin0.model.1.weight.*more and has features"),
    ],
)
def test_a_file_that_is_not_exactly_the_weights_is_refused(tmp_path, tensors, said):
    path = tmp_path / "w.safetensors"
    write_safetensors(path, tensors)
    with pytest.raises(InputError, match=said) as caught:
        read_weights(path, "alex")
    assert str(path) in str(caught.value)


def test_channel_weights_under_both_of_their_names_are_one_tensor(tmp_path, files):
    """A copy of the state has `lin0` and `lins.0`; `save_model` writes one of them."""
    tensors = random_weights("alex")
    repeated = {n.replace("lin", "lins.", 1): v for n, v in tensors.items() if n[:3] == "lin"}
    others = {name: value for name, value in tensors.items() if name[:3] != "lin"}
    expected = read_weights(files["alex"], "alex")
    for content in (tensors | repeated, others | repeated):
        write_safetensors(tmp_path / "w.safetensors", content)
        found = read_weights(tmp_path / "w.safetensors", "alex")
        assert found.keys() == expected.keys()
        for name, value in expected.items():
            np.testing.assert_array_equal(found[name], value)


def test_no_file_and_no_safetensors_file_are_one_sentence(tmp_path):
    with pytest.raises(ConfigError, match=r"config\.metrics\.lpips_weights = 'none'.*save_model"):
        load_lpips(MetricsConfig("vgg", "none"), np.array([[64, 48]]))
    (tmp_path / "w").write_bytes(b"no weights")
    with pytest.raises(CheckpointError, match="no complete safetensors"):
        load_lpips(MetricsConfig("vgg", str(tmp_path / "w")), np.array([[64, 48]]))
    assert load_lpips(MetricsConfig(), np.array([[1, 1]])) is None


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (MetricsConfig("vgg"), "config.metrics.lpips_weights is not"),
        (MetricsConfig("", "w"), "config.metrics.lpips is not"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(settings, said):
    with pytest.raises(ConfigError, match=said):
        small_config(metrics=settings)


def test_weights_and_sizes_are_checked_before_training_and_only_where_they_are_used():
    task = small_task(metrics=MetricsConfig("vgg", "none"))
    with pytest.raises(ConfigError, match="lpips_weights"):
        task.guards().start(*[None] * 3)  # type: ignore[arg-type]
    scene = replace(small_scene(), sizes=small_scene().sizes // 4)
    with pytest.raises(ConfigError, match="one of 12x8"):
        task_of(task.config, scene).guards().start(*[None] * 3)  # type: ignore[arg-type]
    assert small_task().lpips is None


def test_the_metric_is_among_the_scores_under_the_name_of_its_variant(files, metrics):
    name = "vgg_unnormalized"
    scene = small_scene()
    task = small_task(metrics=MetricsConfig(name, str(files["vgg"])))
    generator = np.random.default_rng(3)
    noise = generator.normal(0, 0.1, (len(scene.names), 32, 48, 3))

    def scores(lpips):
        noisy = [(scene.view_on(v, BLACK) + noise[v]).astype(np.float32) for v in (0, 3, 1)]
        return [score_view(scene, v, image, lpips) for v, image in zip((0, 3, 1), noisy)]

    found = summary(scores(task.lpips)[:2], scores(task.lpips)[2:])
    test = [
        metrics[name](scene.view_on(v, BLACK) + noise[v], scene.view_on(v, BLACK)) for v in (0, 3)
    ]
    assert found[f"lpips_{name}"] == pytest.approx(np.mean(test), rel=1e-5)
    assert found[f"train_lpips_{name}"] > 0 and "lpips_vgg" not in found
    without = summary(scores(None)[:2], scores(None)[2:])
    assert not any("lpips" in key for key in without)
    assert found.keys() - without.keys() == {f"lpips_{name}", f"train_lpips_{name}"}
    assert without["gap_psnr"] == without["train_psnr"] - without["psnr"]
