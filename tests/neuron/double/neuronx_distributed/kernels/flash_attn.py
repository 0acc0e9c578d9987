"""The flash attention kernel, absent: no NKI without Neuron's compiler."""


def nki_flash_attn_func(
    q, k, v, lnc=1, dropout_p=0.0, softmax_scale=None, causal=True, mixed_precision=True, seed=None,
    hardware_type=None, transpose_nki_inputs=True,
):  # fmt: skip
    raise NotImplementedError("the NKI flash attention kernel runs on a Trainium core only")
