"""Writes models/embedded-start: configuration and byte-level tokenizer of the embedded model, without weights.

    python models/make_start.py            needs: tokenizers

Every byte is a token; four more mark the turns of a conversation.
"""
import json
import pathlib
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

out = pathlib.Path(__file__).parent / "embedded-start"
specials = ["<|system|>", "<|user|>", "<|assistant|>", "<|end|>"]
vocab = {c: i for i, c in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
tok = Tokenizer(models.BPE(vocab=vocab, merges=[]))
tok.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
tok.decoder = decoders.ByteLevel()
tok.add_special_tokens([AddedToken(s, special=True, normalized=False) for s in specials])
tok.save(str(out / "tokenizer.json"))
end = tok.token_to_id("<|end|>")

template = (
    "{% for message in messages %}"
    "{% if message['role'] == 'system' %}{{ '<|system|>' }}"
    "{% elif message['role'] == 'user' %}{{ '<|user|>' }}"
    "{% elif message['role'] == 'assistant' %}{{ '<|assistant|>' }}"
    "{% else %}{{ raise_exception('roles are system, user and assistant') }}{% endif %}"
    "{{ message['content'] + '<|end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)
write = lambda name, data: (out / name).write_text(json.dumps(data, indent=2) + "\n")
write("tokenizer_config.json", {
    "tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|end|>", "pad_token": "<|end|>",
    "model_max_length": 128, "clean_up_tokenization_spaces": False, "chat_template": template})
write("config.json", {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 96, "intermediate_size": 256,
    "num_hidden_layers": 4, "num_attention_heads": 3, "num_key_value_heads": 3, "head_dim": 32, "vocab_size": tok.get_vocab_size(),
    "max_position_embeddings": 128, "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "hidden_act": "silu",
    "tie_word_embeddings": True, "attention_bias": False, "mlp_bias": False, "initializer_range": 0.02,
    "bos_token_id": None, "eos_token_id": end, "pad_token_id": end, "torch_dtype": "float32"})
write("generation_config.json", {"eos_token_id": end, "pad_token_id": end, "do_sample": True, "temperature": 1.0})
