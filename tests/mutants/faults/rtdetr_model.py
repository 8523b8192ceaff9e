"""Faults in the network of RT-DETR."""

from tests.mutants.fault import Fault

LAYERS, BACKBONE, ENCODER, POSITIONS, SAMPLING, SELECTION, DECODER, DETECTOR, NAMES = (
    *(
        f"rtdetr/model/{name}.py"
        for name in (
            "layers",
            "backbone",
            "hybrid_encoder",
            "positions",
            "deformable_attention",
            "query_selection",
            "decoder",
            "detector",
        )
    ),
    "rtdetr/weights/names.py",
)
TESTS = "tests/rtdetr/model"
WHOLE = f"{TESTS}/detector_test.py"

FAULTS = (
    Fault(
        "the running variance is that of the batch itself",
        LAYERS,
        "spread * (count / max(count - 1, 1))",
        "spread",
        f"{TESTS}/layers_test.py",
    ),
    Fault(
        "strided convolutions pad one side",
        LAYERS,
        "((pad, pad), (pad, pad)),",
        "((pad - stride // 2, pad),) * 2 if stride > 1 else ((pad, pad),) * 2,",
        f"{TESTS}/layers_test.py",
    ),
    Fault(
        "frozen norms follow the batch",
        LAYERS,
        "if self.frozen or not train:",
        "if not train:",
        f"{TESTS}/layers_test.py",
    ),
    Fault(
        "the border of a window counts as zero",
        BACKBONE,
        "lowest = np.array(-np.inf, x.dtype)",
        "lowest = np.array(0, x.dtype)",
        f"{TESTS}/layers_test.py",
    ),
    Fault(
        "padding is attended to",
        ENCODER,
        "None if valid is None else valid[:, None, None, :]",
        "None",
        f"{TESTS}/hybrid_encoder_test.py {WHOLE}",
    ),
    Fault(
        "rows and columns of a rectangle change places",
        POSITIONS,
        'if order == "y_major":\n        rows',
        'if order == "":\n        rows',
        f"{TESTS}/positions_test.py",
    ),
    Fault(
        "points left of a map read its first column",
        SAMPLING,
        "inside = (column >= 0) & (column < width)",
        "inside = (column < width)",
        f"{TESTS}/deformable_attention_test.py",
    ),
    Fault(
        "pixel centers lie at whole numbers",
        SAMPLING,
        "# The hat function of each point over all columns and rows: [B, Q, H, P, w or h].\n",
        "x, y = x + 0.5, y + 0.5\n",
        f"{TESTS}/deformable_attention_test.py",
    ),
    Fault(
        "the packed neighborhood is read column by column",
        SAMPLING,
        "for down in (0, 1)\n        for across in (0, 1)\n    ]\n    packed",
        "for across in (0, 1)\n        for down in (0, 1)\n    ]\n    packed",
        f"{TESTS}/deformable_attention_test.py",
    ),
    Fault(
        "images of other devices are read",
        SAMPLING,
        "@jax.vmap\ndef _rows(",
        "@lambda read: lambda table, index: read(\n"
        "    table.reshape(-1, table.shape[-1]),\n"
        "    index + (jnp.arange(table.shape[0]) * table.shape[1])[:, None],\n"
        ")\ndef _rows(",
        f"{TESTS}/deformable_attention_test.py",
    ),
    Fault(
        "a frozen stem is not frozen",
        BACKBONE,
        "if self.config.freeze_stem:",
        "if False:",
        WHOLE,
    ),
    Fault(
        "anchors of all maps are equally large",
        SELECTION,
        "config.anchor_size * 2.0**level",
        "config.anchor_size",
        f"{TESTS}/query_selection_test.py",
    ),
    Fault(
        "tokens of the padding can become queries",
        DECODER,
        "usable = usable & memory.valid",
        "usable = usable | memory.valid",
        WHOLE,
    ),
    Fault(
        "values of the padding are sampled",
        DECODER,
        "value = jnp.where(memory.valid[..., None], value, 0)",
        "pass",
        WHOLE,
    ),
    Fault(
        "the decoder's loss trains the selection",
        DECODER,
        "content, boxes_logit = jax.lax.stop_gradient((content, boxes_logit))",
        "content, boxes_logit = (content, boxes_logit)",
        WHOLE,
    ),
    Fault(
        "boxes are never looked at twice",
        DECODER,
        "twice = train and self.config.look_forward_twice and number > 0",
        "twice = False",
        WHOLE,
    ),
    Fault(
        "the reference passes gradients from layer to layer",
        DECODER,
        "before, reference = refined, jax.lax.stop_gradient(refined)",
        "before, reference = refined, refined",
        WHOLE,
    ),
    Fault(
        "the prior of the classes is forgotten",
        DECODER,
        "prior = -float(np.log(1 / config.prior - 1))",
        "prior = 0.0",
        WHOLE,
    ),
    Fault(
        "the mask of denoising queries is forgotten",
        DECODER,
        "allowed, extra = denoising.allowed, noisy.shape[1]",
        "allowed, extra = jnp.ones_like(denoising.allowed), noisy.shape[1]",
        WHOLE,
    ),
    Fault(
        "the padding is black before the normalization only",
        DETECTOR,
        "x = jnp.where(inside[..., None], x, 0.0)",
        "x = jnp.where(inside[..., None], x, x.min())",
        WHOLE,
    ),
    Fault(
        "matrices of transformers are not transposed",
        NAMES,
        'axes = {"conv": (2, 3, 1, 0), "dense": (1, 0)}.get(self.layout)',
        'axes = {"conv": (2, 3, 1, 0), "dense": (0, 1)}.get(self.layout)',
        "tests/rtdetr/weights/names_test.py",
    ),
)
