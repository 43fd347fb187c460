"""Predict an image by an exported model, with numpy, Pillow and onnxruntime only.

python onnx_predict.py model.onnx image.jpg prediction.png   (.npy for depth, .json for boxes)
"""

import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image


def working_size(image, inference, fixed):
    """Height and width at which the model was trained to see an image, or less for a smaller fixed size."""
    if inference["squash"]:
        height, width = inference["squash"]
        return (min(height, fixed[0]), min(width, fixed[1])) if fixed else (height, width)
    bounds = (inference["short"], min(image.size)), (inference["long"], max(image.size))
    factor = min((most / side for most, side in bounds if most), default=1.0)
    if fixed:
        factor = min(factor, fixed[0] / image.height, fixed[1] / image.width)
    return max(1, round(image.height * factor)), max(1, round(image.width * factor))


def pixels_of(image, height, width, grid, fixed):
    """Pixels (1, 3, h, w) in [-1, 1], grown to the grid or to the fixed size by repeating the last row and column."""
    resized = image.convert("RGB").resize((width, height), Image.Resampling.BILINEAR)
    pixels = np.asarray(resized, np.float32).transpose(2, 0, 1)[None] / 127.5 - 1
    below, right = (fixed[0] - height, fixed[1] - width) if fixed else (-height % grid, -width % grid)
    return np.pad(pixels, ((0, 0), (0, 0), (0, below), (0, right)), mode="edge")


def enlarge(values, image):
    """Values (h, w) at the size of the image."""
    return np.asarray(Image.fromarray(values).resize(image.size, Image.Resampling.BILINEAR))


def predict(session, image):
    """Class ids (h, w), metres (h, w), or a list of objects, as the model's task is."""
    about = session.get_modelmeta().custom_metadata_map
    fixed = json.loads(about["size"])
    height, width = working_size(image, json.loads(about["inference"]), fixed)
    pixels = pixels_of(image, height, width, int(about["grid"]), fixed)
    names = [output.name for output in session.get_outputs()]
    outputs = dict(zip(names, session.run(None, {"pixels": pixels}), strict=True))
    if about["task"] == "detection":
        scale = np.array([image.width / width, image.height / height] * 2, np.float32)
        boxes = np.minimum(outputs["boxes"] * scale, image.size * 2)
        classes = json.loads(about["classes"])
        rows = zip(boxes.tolist(), outputs["labels"].tolist(), outputs["scores"].tolist(), strict=True)
        return [{"class": classes[label], "score": score, "xyxy": box} for box, label, score in rows]
    maps = np.stack([enlarge(values, image) for values in outputs[names[0]][0, :, :height, :width]])
    return maps.argmax(0).astype(np.uint8) if about["task"] == "segmentation" else maps[0]


def main(model, source, target):
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    prediction = predict(session, Image.open(source))
    if isinstance(prediction, list):
        Path(target).write_text(json.dumps(prediction, indent=1), encoding="utf-8")
    elif target.endswith(".npy"):
        np.save(target, prediction)
    else:
        Image.fromarray(prediction).save(target)


if __name__ == "__main__":
    main(*sys.argv[1:])
