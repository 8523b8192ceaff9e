"""A node that is gone stops the run; a fit is judged by color and outline."""

from hand_object import guards


def row(iou):
    return {"psnr": 20.0, "mask_iou_object": iou, "mask_iou_right": 0.9}


def test_a_lost_object_stops_the_run_with_its_name():
    (verdict,) = guards.of_evaluations([row(0.3), row(0.01)])
    assert not verdict.passed
    assert "the object is not to be seen" in verdict.sentence
    assert guards.of_evaluations([row(0.3), row(0.8)])[0].passed


def test_the_first_evaluation_is_not_judged():
    assert guards.of_evaluations([row(0.0)]) == []


def test_the_fit_needs_both_color_and_outline():
    before = {"psnr": 15.0, "mask_iou": 0.2}
    assert guards.overfit(before, {"psnr": 25.0, "mask_iou": 0.9}).passed
    assert not guards.overfit(before, {"psnr": 25.0, "mask_iou": 0.5}).passed
    assert not guards.overfit(before, {"psnr": 21.0, "mask_iou": 0.9}).passed
    assert not guards.overfit({"psnr": 24.0}, {"psnr": 25.0, "mask_iou": 0.9}).passed


def test_an_object_without_a_surface_is_said_and_does_not_end_the_run():
    seen = {"mask_iou_object": 0.6, "surfaces": 0.0}
    (verdict,) = guards.of_evaluations([seen, seen])
    assert not verdict.passed and verdict.warning
    assert "no surface" in verdict.sentence
