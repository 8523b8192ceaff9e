"""The list: one file for each part of the program. Names of the files say which part."""

from tests.mutants.faults import (
    checkpoint,
    jepa_data,
    jepa_model,
    launch,
    optimization,
    rtdetr_augment,
    rtdetr_criterion,
    rtdetr_scoring,
    splats_data,
    splats_formats,
    splats_gaussians,
    splats_losses,
    splats_render,
    training_data,
    training_run,
    training_storage,
)

FAULTS = (
    *optimization.FAULTS,
    *training_run.FAULTS,
    *training_data.FAULTS,
    *training_storage.FAULTS,
    *launch.FAULTS,
    *checkpoint.FAULTS,
    *jepa_model.FAULTS,
    *jepa_data.FAULTS,
    *rtdetr_augment.FAULTS,
    *rtdetr_criterion.FAULTS,
    *rtdetr_scoring.FAULTS,
    *splats_gaussians.FAULTS,
    *splats_losses.FAULTS,
    *splats_render.FAULTS,
    *splats_data.FAULTS,
    *splats_formats.FAULTS,
)
