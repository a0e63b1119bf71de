"""A toy world made on the spot: a corpus in MovieLens-100K's format, a tiny Llama, a project."""

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import yaml

ROOT = Path(__file__).parent.parent
BASELINES = {
    "models": ["markov", "sasrec-ce", "dros", "sasrec-llm", "p5"],
    "dropouts": [0.2],
    "epochs": 2,
    "collaborative": ["sasrec-ce", "dros"],
}
SELECTION = {"budgets": [8], "random_draws": 1, "seeds": [0], "seeds_a_draw": 1, "n_scored": 10}
CHOOSING = {"pool": 40, "epochs": 2, "inits": 1, "lissa_steps": 5}
WORDS = "Red Blue Night Day River Moon Star City King Queen Lost Last Silent Golden Iron".split()


def toy_titles(n: int) -> list[str]:
    """`n` distinct titles of two or three words and a year; the last two are namesakes."""
    titles = [
        f"{WORDS[i % 15]} {WORDS[(i * 7 + i // 15 + 1) % 15]} ({1950 + i})" for i in range(n - 1)
    ]
    return [*titles, titles[-1]]


def write_ml_100k(folder, users=60, items=50, per_user=(14, 30), seed=0):
    """Write `u.data` and `u.item` in the native format of MovieLens-100K."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    lines = []
    for user in range(1, users + 1):
        count = rng.integers(*per_user)
        for item in rng.choice(items, size=count, replace=False):
            time = 880_000_000 + int(rng.integers(0, 10_000_000))
            lines.append(f"{user}\t{item + 1}\t{rng.integers(1, 6)}\t{time}")
    (folder / "u.data").write_text("\n".join(lines) + "\n", encoding="latin-1")
    genres = "|".join(["0"] * 19)
    (folder / "u.item").write_text(
        "".join(
            f"{item}|{title}|01-Jan-1990||http://example.org|{genres}\n"
            for item, title in enumerate(toy_titles(items), 1)
        ),
        encoding="latin-1",
    )
    return folder


def make_tiny_llm(folder, seed=0, hidden=32):
    """Save a two-layer Llama with random weights and a byte-level BPE tokenizer; return folder."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    from bigrec_lib.method import prompts

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    words = [prompts.DOMAINS[name] for name in ("movies", "games", "items")]
    texts = [prompts.prompt(toy_titles(50), each) for each in words]
    tokenizer.train_from_iterator(texts, trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", pad_token="</s>"
    )
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(fast),
        hidden_size=hidden,
        intermediate_size=2 * hidden,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=1024,
        initializer_range=0.3,
        bos_token_id=fast.bos_token_id,
        eos_token_id=fast.eos_token_id,
        pad_token_id=fast.pad_token_id,
        tie_word_embeddings=True,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    fast.save_pretrained(folder)
    return folder


def make_encoder(folder):
    """A random BERT of two layers, as a Hugging Face folder; return the folder."""
    import torch
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    letters = "abcdefghijklmnopqrstuvwxyz0123456789():,.'&!-"
    pieces = [*special, *letters, *(f"##{letter}" for letter in letters)]
    vocabulary = {piece: number for number, piece in enumerate(pieces)}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]"
    )
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(fast), hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=32, max_position_embeddings=64, initializer_range=0.3,
    )  # fmt: skip
    BertModel(config).save_pretrained(folder)
    fast.save_pretrained(folder)
    return folder


def batch(project, *words, check=True):
    """Call the batch in a project's folder; return what it printed."""
    command = [sys.executable, "-m", "bigrec_lib.study.batch", *words]
    done = subprocess.run(command, cwd=project, capture_output=True, text=True)
    if check and done.returncode:
        raise AssertionError(done.stdout + done.stderr)
    return done


def make_project(folder, data, llm, **changes):
    """A copy of the project with a study `toy`; `changes` are keys of its study file."""
    from bigrec_lib.study.parameters import NOTEBOOKS

    for part in ("bigrec_lib", "notebooks", "workflow", "pyproject.toml"):
        copy = shutil.copytree if (ROOT / part).is_dir() else shutil.copy
        (folder / part).parent.mkdir(parents=True, exist_ok=True)
        copy(ROOT / part, folder / part)
    study = {
        "datasets": {
            "toy": {"reader": "ml-100k", "data_path": str(data), "n_valid": 20, "n_test": 20}
        },
        "n_train": [16],
        "seeds": [0],
        "llm": {"model": str(llm), "quantisation": "none", "dtype": "float32"},
        "baselines": {},
        "cheaper": True,
        "cost": True,
        "adapters": [0],
        "selection": SELECTION,
        "alignment": {"ranked": 3},
        "resources": {name: {"threads": 1} for name in NOTEBOOKS},
        "notebooks": {
            "03_generate_titles": {"batch_size": 8},
            "05_reweight_by_statistics": {"collaborative": "dros", "comparator": "sasrec-ce"},
            "06_train_baselines": BASELINES,
            "17a_measure_cost": {"requests": 3, "batches": [1, 2], "models": ["markov"]},
            "15a_measure_grounders": {
                "synthetic": [100, 200],
                "requests": 5,
                "layers": 1,
                "encoder": str(make_encoder(Path(llm).parent / "encoder")),
            },
            "13a_select_samples": CHOOSING,
            "16a_measure_alignment": {"titles": 10, "sampled": 20, "permutations": 5},
        },
        **changes,
    }
    (folder / "studies").mkdir()
    (folder / "studies" / "toy.yaml").write_text(yaml.safe_dump(study))
    return folder


FRONT = ("index.html", "README.md", "site/evidence.html")  # show the claims about time, too


def results_of(project) -> dict[str, object]:
    """SHA-256 of every published file of the toy study, but for manifests and seconds.

    Those tell when and how fast, and so do the table of seconds and the pages that show such.
    """
    from bigrec_lib.files import sha256

    results = project / "results" / "toy"
    timed = {"manifests.json", "claims.csv", "site/search.js", *FRONT}
    for job in ("08_training_size.*", "*1[357]*_*"):
        shown = [*results.glob(f"notebooks/{job}"), *results.glob(f"site/**/{job}")]
        timed |= {path.relative_to(results).as_posix() for path in shown}
    timed |= {f"figures/{name}.png" for name in ("cheaper_grounding", "cost", "sample_selection")}
    timed |= {
        f"tables/{name}.csv" for name in ("grounders", "rivals", "searches", "training_seconds")
    }
    timed |= {f"tables/cost{suffix}" for suffix in (".csv", ".md", ".tex")}
    timed |= {f"tables/sample_selection{suffix}" for suffix in (".csv", ".md", ".tex")}
    files = [path for path in sorted(results.rglob("*")) if path.is_file()]
    names = {path.relative_to(results).as_posix(): path for path in files}
    claims = (results / "claims.csv").read_text().splitlines()
    lasting = {line for line in claims if not line.startswith(("Q3", "V2"))}
    return {name: sha256(path) for name, path in names.items() if name not in timed} | {
        "claims but for those about time": sorted(lasting)
    }


def tuning_settings(**changes):
    """Settings of a tuning: the study's defaults, but for the changes."""
    from bigrec_lib.method.tuning import Tuning
    from bigrec_lib.study.parameters import TuneLLM

    return Tuning(**{**TuneLLM().settings, **changes})


def fresh_adapter(llm, **changes):
    """A fresh adapter on a model, with settings as `tuning_settings` has them."""
    from bigrec_lib.method.adapters import add_adapter

    s = tuning_settings(**changes)
    return add_adapter(llm, s.rank, s.alpha, s.dropout, s.target_modules, s.seed)
