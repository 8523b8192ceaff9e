"""`podvision prepare hand_object --input DIR [--output DIR]`: check a sequence before training.

Prints one line a finding; writes a picture of each that is not green to the output folder. With
`--synthetic` it makes a sequence in the input folder first.
"""

from __future__ import annotations

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of the command to `parser`."""
    parser.add_argument("--input", required=True, help="HOLD build folder, or the one around it")
    parser.add_argument("--output", help="folder for pictures of what is wrong")
    parser.add_argument("--hand", help="hand model of the poses: a name, MANO .pkl, or .npz")
    parser.add_argument(
        "--camera",
        default="auto",
        choices=["auto", "opencv", "opengl"],
        help="axes of the cameras (auto: those in which hands and object lie before them)",
    )
    parser.add_argument("--object", help="name of the object, where a recording has several")
    parser.add_argument("--force", action="store_true", help="exit code 0 in spite of red findings")
    made = parser.add_argument_group("a made-up sequence")
    made.add_argument("--synthetic", action="store_true", help="make it in the input folder")
    made.add_argument("--frames", type=int, default=24)
    made.add_argument("--side", choices=["right", "left"], default="right")
    made.add_argument("--solid", default="bottle", help="box, bottle, ball, dumbbell, or an .obj")


def run(args: argparse.Namespace) -> int:
    """Checks the sequence; returns 0, or raises InputError on a red finding."""
    from PIL import Image

    from hand_object.config import SequenceConfig
    from hand_object.data.finding import refuse_red
    from hand_object.data.sequence_access import check_folder
    from hand_object.synthetic import DEVELOPMENT, make_sequence, replace

    folder = Path(args.input)
    if args.synthetic:
        scene = replace(DEVELOPMENT, frames=args.frames, side=args.side, object=args.solid)
        make_sequence(scene, folder)
    config = SequenceConfig(
        path=str(folder), hand=args.hand, camera=args.camera, object=args.object
    )
    checked = check_folder(folder, config)
    for side in sorted(set(checked.sequence.hands) - set(checked.hands)):
        print(f"the {side} hand is not checked; name its model by --hand")
    for finding in checked.findings:
        print(f"{finding.level:6}  {finding.name}: {finding.sentence}")
        if args.output and finding.level != "green" and finding.picture is not None:
            target = Path(args.output) / f"{finding.name.replace(' ', '_')}.png"
            target.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(finding.picture).save(target)
    if not args.force:
        refuse_red(checked.findings)
    return 0
