"""Text decoders of transformers: causal language models without experts or recurrence."""

from __future__ import annotations

from functools import partial

from zoo.entry import Entry
from zoo.pretrained import transformer
from zoo.tensors import VOCABULARY, prompt, unpadded

TOKENS = {"vocab_size": VOCABULARY, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
ATTENTION = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
MULTI_HEAD = {**TOKENS, **ATTENTION, "intermediate_size": 256, "max_position_embeddings": 64}
GROUPED = {**MULTI_HEAD, "num_key_value_heads": 2}
OLD_STYLE = {**TOKENS, "n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 64}

decoder = partial(transformer, family="text-decoder", inputs=prompt, generate=True)

ENTRIES: tuple[Entry, ...] = (
    decoder("gpt2", class_name="GPT2LMHeadModel", **OLD_STYLE),
    decoder(
        "gpt_neo",
        class_name="GPTNeoForCausalLM",
        **TOKENS,
        hidden_size=64,
        num_layers=2,
        num_heads=4,
        attention_types=[[["global", "local"], 1]],
        window_size=4,
        max_position_embeddings=64,
    ),
    decoder("gpt_neox", class_name="GPTNeoXForCausalLM", **MULTI_HEAD),
    decoder("gptj", class_name="GPTJForCausalLM", **OLD_STYLE, rotary_dim=8),
    decoder("gpt_bigcode", class_name="GPTBigCodeForCausalLM", **OLD_STYLE),
    decoder("openai_gpt", class_name="OpenAIGPTLMHeadModel", **OLD_STYLE, note="post-norm, no cache"),
    decoder(
        "opt",
        class_name="OPTForCausalLM",
        **TOKENS,
        **ATTENTION,
        ffn_dim=256,
        max_position_embeddings=64,
        word_embed_proj_dim=32,
        note="embeddings narrower than the model, as in opt-350m",
    ),
    decoder("bloom", class_name="BloomForCausalLM", **TOKENS, hidden_size=64, n_layer=2, n_head=4),
    decoder("falcon", class_name="FalconForCausalLM", **TOKENS, **ATTENTION, note="a subclass of Linear"),
    decoder("mpt", class_name="MptForCausalLM", **TOKENS, d_model=64, n_heads=4, n_layers=2, max_seq_len=64),
    decoder("phi", class_name="PhiForCausalLM", **MULTI_HEAD),
    decoder("phi3", class_name="Phi3ForCausalLM", **GROUPED, original_max_position_embeddings=64),
    decoder("llama", class_name="LlamaForCausalLM", **GROUPED),
    decoder(
        "llama_tied", class_name="LlamaForCausalLM", **GROUPED, tie_word_embeddings=True, published=False
    ),
    decoder("mistral", class_name="MistralForCausalLM", **GROUPED, sliding_window=6),
    decoder("qwen2", class_name="Qwen2ForCausalLM", **GROUPED),
    decoder("qwen3", class_name="Qwen3ForCausalLM", **GROUPED, head_dim=16),
    decoder("gemma", class_name="GemmaForCausalLM", **GROUPED, head_dim=16),
    decoder("gemma2", class_name="Gemma2ForCausalLM", **GROUPED, head_dim=16, sliding_window=6),
    decoder("gemma3_text", class_name="Gemma3ForCausalLM", **GROUPED, head_dim=16, sliding_window=6),
    decoder("starcoder2", class_name="Starcoder2ForCausalLM", **GROUPED),
    decoder("stablelm", class_name="StableLmForCausalLM", **GROUPED),
    decoder("olmo2", class_name="Olmo2ForCausalLM", **GROUPED),
    decoder("olmo3", class_name="Olmo3ForCausalLM", **GROUPED, sliding_window=6),
    decoder("cohere", class_name="CohereForCausalLM", **GROUPED),
    decoder("cohere2", class_name="Cohere2ForCausalLM", **GROUPED, sliding_window=6),
    decoder("codegen", class_name="CodeGenForCausalLM", **OLD_STYLE, rotary_dim=8),
    decoder(
        "xglm",
        class_name="XGLMForCausalLM",
        **TOKENS,
        d_model=64,
        ffn_dim=256,
        num_layers=2,
        attention_heads=4,
        max_position_embeddings=64,
    ),
    decoder("biogpt", class_name="BioGptForCausalLM", **MULTI_HEAD),
    decoder(
        "ctrl",
        class_name="CTRLLMHeadModel",
        inputs=unpadded,
        **{**OLD_STYLE, "dff": 256},
    ),
    decoder("granite", class_name="GraniteForCausalLM", **GROUPED),
    decoder("bitnet", class_name="BitNetForCausalLM", **GROUPED),
    decoder("glm4", class_name="Glm4ForCausalLM", **GROUPED, head_dim=16),
    decoder("smollm3", class_name="SmolLM3ForCausalLM", **GROUPED),
    decoder("nemotron", class_name="NemotronForCausalLM", **GROUPED, published={"num_key_value_heads": 8}),
    decoder("persimmon", class_name="PersimmonForCausalLM", **MULTI_HEAD),
    decoder("diffllama", class_name="DiffLlamaForCausalLM", **GROUPED),
    decoder("helium", class_name="HeliumForCausalLM", **GROUPED, head_dim=16),
    decoder(
        "minicpm3",
        class_name="MiniCPM3ForCausalLM",
        **MULTI_HEAD,
        q_lora_rank=24,
        kv_lora_rank=16,
        qk_nope_head_dim=16,
        qk_rope_head_dim=8,
        v_head_dim=16,
        note="latent attention",
    ),
    decoder(
        "modernbert_decoder",
        class_name="ModernBertDecoderForCausalLM",
        **MULTI_HEAD,
        cls_token_id=1,
        sep_token_id=2,
    ),
)
