"""Small files that would take hours, or all of the memory."""

import struct

from changes import (
    Case,
    appended,
    argument,
    both,
    config,
    header,
    huge_and_consistent,
    linear,
    linked,
    metrics,
    sparse,
    text,
    weights,
)

BOMBS = [
    Case("bomb: a width of 4096", argument("width", 4096)),
    Case("bomb: a width of a million", argument("width", 10**6)),
    Case("bomb: a width of a billion", argument("width", 10**9)),
    Case("bomb: a depth of a million", argument("depth", 10**6), says="more layers than there are weights for"),
    Case("bomb: a depth of a billion", argument("depth", 10**9)),
    Case("bomb: a code of a billion", argument("latent_dim", 10**9)),
    Case("bomb: a part of 10¹⁰ weights", argument("encoder", linear(10**5, 10**5))),
    Case(
        "bomb: a million copies of a part",
        argument(
            "encoder",
            {
                "class_path": "torch.nn.TransformerEncoder",
                "init_args": {
                    "encoder_layer": {
                        "class_path": "torch.nn.TransformerEncoderLayer",
                        "init_args": {"d_model": 2, "nhead": 1},
                    },
                    "num_layers": 10**6,
                },
            },
        ),
    ),
    Case(
        "bomb: a recurrent part",
        argument(
            "encoder",
            {"class_path": "torch.nn.LSTM", "init_args": {"input_size": 2, "hidden_size": 4, "num_layers": 10**6}},
        ),
    ),
    Case("bomb: a large datum", argument("shape", [10**9])),
    Case(
        "bomb: an image of 10¹⁰ pixels",
        both(argument("shape", [1, 10**5, 10**5]), config("shape", be=[1, 10**5, 10**5])),
        base="unet",
    ),
    Case(
        "bomb: an image for the same weights",
        both(argument("shape", [3, 4096, 4096]), config("shape", be=[3, 4096, 4096])),
        base="unet",
    ),
    Case("bomb: many levels", argument("levels", 10**12), base="digits"),
    Case("bomb: levels for a mask", argument("levels", 10**6), base="digits"),
    Case(
        "bomb: a schedule of a billion steps",
        argument("schedule", {"class_path": "genzoo.zoo.CosineBetas", "init_args": {"steps": 10**9}}),
        base="ddpm",
    ),
    Case("bomb: blocks", argument("blocks", 10**9), base="ddpm"),
    Case("bomb: levels of a U-Net", argument("multipliers", [2**20] * 1000), base="unet"),
    Case("bomb: a mask", argument("width", 10**6), base="made"),
    Case("bomb: hidden layers", argument("depth", 2 * 10**6), base="made"),
    Case("bomb: mixtures", argument("mixtures", 2 * 10**6), base="made"),
    Case("bomb: layers of a transformer", argument("depth", 10**6), base="gpt"),
    Case(
        "bomb: a long text for the same weights",
        both(argument("shape", [2**21 + 1]), config("shape", be=[2**21 + 1])),
        base="gpt",
    ),
    Case(
        "bomb: a longer text",
        both(argument("shape", [2**21]), config("shape", be=[2**21]), argument("heads", 1)),
        says="tables|fit",
        base="gpt",
    ),
    Case("bomb: cycles", argument("cycles", 2 * 10**6), base="wavenet"),
    Case(
        "bomb: cycles of many dilations",
        both(argument("dilations", [1] * 5_000), argument("cycles", 2 * 10**6)),
        base="wavenet",
    ),
    Case("bomb: 20,000 brackets", appended("config.yaml", "more: " + "[" * 20_000), says="nest"),
    Case(
        "bomb: 20,000 pairs of brackets",
        appended("config.yaml", "more: " + "[" * 20_000 + "]" * 20_000),
        says="nest",
    ),
    Case("bomb: 20,000 braces", appended("config.yaml", "more: " + "{a: " * 20_000), says="nest"),
    Case(
        "bomb: 2,000 blocks",
        appended("config.yaml", "more:\n" + "".join(" " * i + " a:\n" for i in range(2000))),
        says="nest",
    ),
    Case("bomb: a million values", appended("config.yaml", "more: [" + "0," * 10**6 + "0]\n"), says="values"),
    Case("bomb: a million keys", appended("config.yaml", "".join(f"k{i}: 0\n" for i in range(10**5))), says="values"),
    Case("bomb: 9 MB of YAML", appended("config.yaml", "# " + "x" * 9 * 2**20), says="bytes"),
    Case(
        "bomb: a billion laughs",
        appended(
            "config.yaml",
            "a: &a [1, 1]\n"
            + "".join(f"{y}: &{y} [*{x}, *{x}]\n" for x, y in zip("abcdefgh", "bcdefghi", strict=True)),
        ),
        says="aliases",
    ),
    Case("bomb: a number of 5,000 digits", appended("config.yaml", "more: " + "9" * 5000), says="damaged"),
    Case(
        "bomb: a number of a million hexadecimal digits",
        appended("config.yaml", "more: 0x" + "f" * 10**6),
        says="64 bits",
    ),
    Case("bomb: 20,000 brackets of JSON", text("metrics.json", "[" * 20_000), "ecp", "nested"),
    Case("bomb: 500 brackets of JSON", text("metrics.json", "[" * 500 + "]" * 500), "ecp", "nested"),
    Case("bomb: 2 MB of JSON", text("metrics.json", "[" + "0," * 2**20 + "0]"), "ecp", "bytes"),
    Case("bomb: a number of 5,000 digits of JSON", metrics("figures", 0, "value", be=10**4000), "ecp", "64 bits"),
    Case("bomb: 5 GB of weights that nobody knows of", sparse(False), says="too large|no safetensors"),
    Case("bomb: 5 GB of weights", sparse(True), says="too large"),
    Case(
        "bomb: 5 GB of weights for a small model",
        both(sparse(True), config("weights", "parameters", be=10**10)),
        says="does not fit",
    ),
    Case(
        "bomb: 5 GB of weights for a large model",
        both(huge_and_consistent, config("weights", "parameters", be=10**10)),
        says="width is",
    ),
    Case(
        "bomb: a header of 100 MB",
        lambda entry: weights(struct.pack("<Q", 10**8) + b"{" + b" " * 10**8, entry),
        says="no safetensors|too large",
    ),
    Case(
        "bomb: a deep header",
        lambda entry: weights(struct.pack("<Q", 20_000) + b"[" * 20_000, entry),
        says="no safetensors",
    ),
    Case(
        "bomb: a header of very large tensors",
        header(lambda h: {"x": {"dtype": "F32", "shape": [2**40, 2**40], "data_offsets": [0, 4]}}),
        says="no safetensors",
    ),
    Case("bomb: weights without an end", linked("model.safetensors", "/dev/zero"), says="no file|link"),
]
