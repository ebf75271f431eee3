"""A finished run as a Hugging Face folder: the weights as a `LlamaForCausalLM`, and its tokenizer.

The architecture is LLaMA's, so nothing is approximated. Queries, keys and values, and gate and up, are rows of one matrix here
and separate matrices there; both rotate RoPE's pairs (k, k + K/2).
"""

import json
import shutil
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from models import ModelConfig
from sweep.data import Corpus
from sweep.data.tokenizer import BYTES, END_OF_DOCUMENT, ByteTokenizer
from sweep.errors import InputError
from sweep.files import temporary_beside, write_json
from sweep.store import Store
from sweep.store.curves import read_results
from sweep.use.evaluate import last_weights

if TYPE_CHECKING:
    import tokenizers
    import torch

EVERYTHING = slice(None)


def export(store: Store, run_id: str, out: Path) -> Path:
    """Write the last weights of a finished run, in float32, and its corpus's tokenizer to `out`, completely or not at all.

    `AutoModelForCausalLM.from_pretrained` and `AutoTokenizer.from_pretrained` load the folder without custom code. No token is
    added to an encoded text; the end of a document is the end of a sequence, and, as in training, what stands before its first
    token.

    Raises:
        InputError: if the run is not done, has no sound checkpoint or another architecture than LLaMA's, its corpus is gone,
            or `out` holds something or cannot be written.
    """
    from safetensors.torch import save

    directory = store.run(run_id)
    if not directory.path.is_dir():
        raise InputError(f"run_id={run_id} is not in store={store.root}; isosweep status lists the runs there are")
    run, status = directory.config(), read_results(directory).status
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"out={out} exists and is not an empty folder; name another, or remove it")
    if other := not_llama(run.model):
        raise InputError(f"run {run_id} has {other}, which LlamaForCausalLM does not compute; export a run without")
    corpus_directory = store.corpora / run.corpus
    if not corpus_directory.exists():
        raise InputError(f"{corpus_directory}, whose tokenizer the run needs, is gone; isosweep launch makes it again")
    tokenizer: Any = Corpus.open(corpus_directory).tokenizer()
    if tokenizer.vocab_size != run.model.vocab_size:
        raise InputError(
            f"the tokenizer in {corpus_directory} has {tokenizer.vocab_size:,} ids and run {run_id} {run.model.vocab_size:,}; "
            f"delete {corpus_directory}, and isosweep launch makes it again"
        )
    weights = last_weights(directory, run)

    temporary = temporary_beside(out)
    try:
        temporary.mkdir(parents=True)
        facts = {"run_id": run_id, "tokens": run.D, "val_loss": status["val_loss"]}
        # Readers find the facts with safetensors.safe_open(…).metadata(). save_file would make a file for its owner only.
        content = save(hugging_face_weights(weights, run.model), {"format": "pt", "isosweep": json.dumps(facts)})
        (temporary / "model.safetensors").write_bytes(content)
        end = int(tokenizer.end_of_document)
        special = {"bos_token_id": end, "eos_token_id": end}
        write_json(temporary / "config.json", hugging_face_config(run.model) | special)
        write_json(temporary / "generation_config.json", special)
        library = _byte_library() if isinstance(tokenizer, ByteTokenizer) else tokenizer.library
        library.save(str(temporary / "tokenizer.json"))
        token = str(library.id_to_token(end))
        settings = {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "bos_token": token,
            "eos_token": token,
            "model_max_length": run.model.context_length,
            "clean_up_tokenization_spaces": False,
        }
        write_json(temporary / "tokenizer_config.json", settings)
        temporary.rename(out)  # onto an empty folder too
    except OSError as error:
        raise InputError(f"out={out} cannot be written ({error.strerror or error}); choose another out=…") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return out


def not_llama(model: ModelConfig) -> str:
    """The fields in which `model` differs from LLaMA's architecture, as text; empty if it does not."""
    choices = ("body", "norm", "feed_forward", "position", "position_ids", "qk_norm", "shared")
    defaults = {each.name: each.default for each in fields(ModelConfig)}
    return ", ".join(f"model.{name}={getattr(model, name)}" for name in choices if getattr(model, name) != defaults[name])


def hugging_face_config(model: ModelConfig) -> dict[str, Any]:
    """config.json of the `LlamaForCausalLM` that computes what `models.language_model.LanguageModel(model)` does.

    RoPE's base is given twice: transformers 5 reads it from `rope_parameters`, earlier releases from `rope_theta`.
    """
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": model.vocab_size,
        "hidden_size": model.d_model,
        "intermediate_size": model.d_ff,
        "num_hidden_layers": model.n_layers,
        "num_attention_heads": model.n_heads,
        "num_key_value_heads": model.n_kv_heads,
        "head_dim": model.head_dim,
        "hidden_act": "silu",
        "max_position_embeddings": model.context_length,
        "rms_norm_eps": model.norm_eps,
        "rope_theta": model.rope_theta,
        "rope_parameters": {"rope_type": "default", "rope_theta": model.rope_theta},
        "tie_word_embeddings": model.tied_embeddings,
        "attention_bias": False,
        "mlp_bias": False,
        "torch_dtype": "float32",
    }


def hugging_face_rows(model: ModelConfig) -> dict[str, tuple[str, slice]]:
    """For each parameter of `LlamaForCausalLM`, by name, the parameter of `LanguageModel` and the rows of it that hold it."""
    q, kv = model.n_heads * model.head_dim, model.n_kv_heads * model.head_dim
    rows = {"model.embed_tokens.weight": ("embedding.weight", EVERYTHING), "model.norm.weight": ("norm.weight", EVERYTHING)}
    if not model.tied_embeddings:
        rows["lm_head.weight"] = ("head.weight", EVERYTHING)
    for i in range(model.n_layers):
        theirs, ours = f"model.layers.{i}", f"blocks.{i}"
        rows |= {
            f"{theirs}.self_attn.q_proj.weight": (f"{ours}.attention.qkv.weight", slice(0, q)),
            f"{theirs}.self_attn.k_proj.weight": (f"{ours}.attention.qkv.weight", slice(q, q + kv)),
            f"{theirs}.self_attn.v_proj.weight": (f"{ours}.attention.qkv.weight", slice(q + kv, q + 2 * kv)),
            f"{theirs}.self_attn.o_proj.weight": (f"{ours}.attention.out.weight", EVERYTHING),
            f"{theirs}.mlp.gate_proj.weight": (f"{ours}.feed_forward.gate_up.weight", slice(0, model.d_ff)),
            f"{theirs}.mlp.up_proj.weight": (f"{ours}.feed_forward.gate_up.weight", slice(model.d_ff, 2 * model.d_ff)),
            f"{theirs}.mlp.down_proj.weight": (f"{ours}.feed_forward.down.weight", EVERYTHING),
            f"{theirs}.input_layernorm.weight": (f"{ours}.attention_norm.weight", EVERYTHING),
            f"{theirs}.post_attention_layernorm.weight": (f"{ours}.feed_forward_norm.weight", EVERYTHING),
        }
    return rows


def hugging_face_weights(weights: "dict[str, torch.Tensor]", model: ModelConfig) -> "dict[str, torch.Tensor]":
    """The state of a `LlamaForCausalLM` from the state of a `LanguageModel`; no two tensors share memory."""
    return {name: weights[ours][part].float().clone() for name, (ours, part) in hugging_face_rows(model).items()}


def _byte_library() -> "tokenizers.Tokenizer":
    """`ByteTokenizer` as a BPE without merges, in which every character falls back to its bytes."""
    from tokenizers import Tokenizer, decoders, models

    library = Tokenizer(models.BPE(vocab={f"<0x{byte:02X}>": byte for byte in range(BYTES)}, merges=[], byte_fallback=True))
    library.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse()])
    library.add_special_tokens([END_OF_DOCUMENT])
    return library
