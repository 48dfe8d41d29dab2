#!/usr/bin/env python3
"""Makes sampling.json: which tokens Hugging Face transformers leaves to chance, and their logits. Made with torch 2.15.0
and transformers 5.24.0.

    pip install torch==2.15.0 transformers==5.24.0
    tools/model/tests/sampling.py
"""

import itertools
import json
from pathlib import Path

import torch
from transformers.generation import logits_process as lp

VOCAB = 60
torch.manual_seed(3)
logits = (3 * torch.randn(VOCAB)).tolist()
scores = torch.tensor([logits])
cases = []
for recent, penalty in [([], 1.0), ([5, 9, 9, 41, 7], 1.3)]:
    for top_k, top_p, min_p in itertools.product([0, 1, 20], [1.0, 0.9, 0.5], [0.0, 0.1]):
        steps = [lp.RepetitionPenaltyLogitsProcessor(penalty)]
        steps += [lp.TopKLogitsWarper(top_k)] if top_k else []
        steps += [lp.TopPLogitsWarper(top_p)] if top_p < 1 else []
        steps += [lp.MinPLogitsWarper(min_p)] if min_p else []
        out = scores.clone()
        for step in steps:
            out = step(torch.tensor([recent], dtype=torch.long), out)
        kept = (out[0] > -torch.inf).nonzero().flatten().tolist()
        cases.append(dict(recent=recent, repetition_penalty=penalty, top_k=top_k, top_p=top_p, min_p=min_p, kept=kept,
            logits=out[0][kept].tolist()))
path = Path(__file__).with_suffix(".json")
path.write_text(json.dumps(dict(logits=logits, cases=cases)) + "\n")
