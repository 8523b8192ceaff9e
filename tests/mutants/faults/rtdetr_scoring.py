"""Faults in how detections are chosen, scored, drawn and written."""

from tests.mutants.fault import Fault

POSTPROCESS, INFERENCE = "rtdetr/postprocess.py", "rtdetr/inference.py"
COCO, MATCHES = "rtdetr/scoring/coco_ap.py", "rtdetr/scoring/matches.py"
CONFIDENCE, CONFUSION = "rtdetr/scoring/confidence.py", "rtdetr/scoring/confusion.py"
PAIRING, BOOTSTRAP = "rtdetr/scoring/pairing.py", "rtdetr/scoring/bootstrap.py"
EVALUATION, DRAWING = "rtdetr/evaluation.py", "rtdetr/drawing.py"
PREDICT, PREDICTIONS = "rtdetr/predict.py", "rtdetr/predictions.py"
SCORING_TESTS, EVALUATION_TESTS = "tests/rtdetr/scoring", "tests/rtdetr/evaluation_test.py"
PREDICT_TESTS = "tests/rtdetr/predict_test.py"
TILES, TILES_TEST = "rtdetr/tiles.py", "tests/rtdetr/tiles_test.py"

FAULTS = (
    Fault(
        "pairs are read class by class",
        POSTPROCESS,
        "query, label = place // classes, place % classes",
        "query, label = place % queries, place // queries",
        "tests/rtdetr/postprocess_test.py",
    ),
    Fault(
        "large logits tie",
        POSTPROCESS,
        "jax.lax.top_k(pairs,",
        "jax.lax.top_k(jnp.minimum(pairs, 16.0),",
        "tests/rtdetr/postprocess_test.py",
    ),
    Fault(
        "detections below a score are not scored",
        INFERENCE,
        "right = np.isfinite(scores) &",
        "right = (scores > 0.5) & np.isfinite(scores) &",
        f"{EVALUATION_TESTS} tests/failures/detection_scores_test.py",
    ),
    Fault(
        "the average of the weights is not evaluated",
        INFERENCE,
        "    if state.ema is None:\n",
        "    if True:\n",
        EVALUATION_TESTS,
    ),
    Fault(
        "rows that fill up a batch count as matched",
        INFERENCE,
        'labels = jnp.where(batch["weight"][:, None] > 0, batch["labels"], NO_OBJECT)',
        'labels = batch["labels"]',
        EVALUATION_TESTS,
    ),
    Fault(
        "boxes of a letterbox come back as from a squash",
        INFERENCE,
        "placement(size, canvas, resize).to_image",
        'placement(size, canvas, "squash").to_image',
        EVALUATION_TESTS,
    ),
    Fault(
        "crowds are objects",
        COCO,
        '"iscrowd": int(crowd)}',
        '"iscrowd": 0 * int(crowd)}',
        f"{SCORING_TESTS}/coco_ap_test.py",
    ),
    Fault(
        "classes without objects score -1",
        COCO,
        "defined = values[values > -1]",
        "defined = values[values > -2]",
        f"{SCORING_TESTS}/coco_ap_test.py",
    ),
    Fault(
        "a hundred detections whatever was asked for",
        COCO,
        "evaluation.params.maxDets = list(limits)",
        "evaluation.params.maxDets = [min(limit, 100) for limit in limits]",
        f"{SCORING_TESTS}/coco_ap_test.py",
    ),
    Fault(
        "precision is not the best at a higher recall",
        MATCHES,
        "best = np.maximum.accumulate(precision[..., ::-1], axis=-1)[..., ::-1]",
        "best = precision",
        f"{SCORING_TESTS}/coco_ap_test.py",
    ),
    Fault(
        "resampled images do not weigh on false detections",
        MATCHES,
        "np.where(ignored, 0.0, weight)",
        "np.where(ignored, 0.0, np.ones_like(weight))",
        f"{SCORING_TESTS}/bootstrap_test.py",
    ),
    Fault(
        "a score at the threshold is left out",
        CONFIDENCE,
        'side="right"',
        'side="left"',
        f"{SCORING_TESTS}/confidence_test.py",
    ),
    Fault(
        "detections in crowds are false",
        PAIRING,
        "in_crowd & (object_of == UNPAIRED))",
        "in_crowd & (object_of != UNPAIRED))",
        f"{SCORING_TESTS}/pairing_test.py",
    ),
    Fault(
        "confusions are turned around",
        CONFUSION,
        "np.add.at(matrix, (there, said), 1)",
        "np.add.at(matrix, (said, there), 1)",
        f"{SCORING_TESTS}/pairing_test.py",
    ),
    Fault(
        "written boxes have corners in place of sides",
        PREDICTIONS,
        "np.round(found.boxes.widths().values, 5)",
        "np.round(found.boxes.values, 5)",
        PREDICT_TESTS,
    ),
    Fault(
        "written classes are labels",
        PREDICTIONS,
        "classes.source_ids[label]",
        "label",
        PREDICT_TESTS,
    ),
    Fault(
        "what is not drawn is not written",
        PREDICT,
        "Results(args.output, task.classes, args.keep)",
        "Results(args.output, task.classes, threshold)",
        PREDICT_TESTS,
    ),
    Fault(
        "drawn boxes are shifted by a pixel",
        DRAWING,
        "outline = (left, top, max(right - 1, left), max(bottom - 1, top))",
        "outline = (left, top, right, bottom)",
        "tests/rtdetr/drawing_test.py",
    ),
    Fault(
        "every host draws the pictures of an evaluation",
        "rtdetr/evaluation.py",
        "    if distributed.is_main():\n        images = score_pictures",
        "    if True:\n        images = score_pictures",
        "tests/pod/rtdetr_evaluation_pod_test.py",
    ),
    Fault(
        "detections of one window suppress each other",
        TILES,
        "return free & (source != source[one]) & ((iou >= SAME) | piece)",
        "return free & ((iou >= SAME) | piece)",
        TILES_TEST,
    ),
    Fault(
        "borders of the picture cut boxes",
        TILES,
        "(boxes[:, 2] >= self.right - near_x) & (self.right < size[1]),",
        "(boxes[:, 2] >= self.right - near_x),",
        TILES_TEST,
    ),
    Fault(
        "tiles have less in common than was asked for",
        TILES,
        "count = -(-(length - common) // (self.side - common))",
        "count = -(-length // self.side)",
        TILES_TEST,
    ),
)
