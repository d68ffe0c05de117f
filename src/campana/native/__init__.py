"""Compiled code of ours, for what no library computes at the machine's rate: built from C on the machine that runs it, at first use.

    compiled = Compiled.load("fp32", cache_dir)           # Unavailable, with its reason, where it cannot be had
    out, lse = compiled.attention.forward(q, k, v, bounds, scale=1 / 8, window=None)
    out, inverse = compiled.elementwise.norm(x, weight, eps=1e-5)

Two libraries, a folder of C files each, with the same interface, for tuning, reading and answers: `bf16` for CPUs with AVX512-BF16,
`fp32` for those with AVX2. `segments.h` and `segments_tasks.h` are what attention of both shares. Whatever is here has a form in
torch's own operations as well, which is used everywhere else.
Nothing is imported here: plans ask `build` without loading torch.
"""
