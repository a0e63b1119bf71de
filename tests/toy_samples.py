"""Samples of the toy world, and their loss written as plainly as can be."""

import torch
from toy import toy_titles

from bigrec_lib.method import prompts
from bigrec_lib.method.samples import Sample

WORDS = prompts.DOMAINS["movies"]


def toy_samples(n, start=0):
    titles = toy_titles(50)
    return [
        Sample(prompts.prompt(titles[i % 7 : i % 7 + 2 + i % 3], WORDS), prompts.answer(titles[i]))
        for i in range(start, start + n)
    ]


def reference_loss(model, encoded):
    """Sum of losses, one unpadded sample at a time through the whole model."""
    total = 0.0
    for each in encoded:
        ids = torch.from_numpy(each.ids)[None]
        logits = model(input_ids=ids).logits[0, -each.learnt - 1 : -1]
        total += torch.nn.functional.cross_entropy(logits, ids[0, -each.learnt :], reduction="sum")
    return total
