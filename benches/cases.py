"""The cases that are measured. How a library does each stands in its `case_*.py`; importing this costs
nothing.
"""

CASES: dict[str, str] = {
    "import": "import",
    "add10": "add of two 10-element arrays",
    "chain10": "forward and backward of ten tiny operators",
    "asnumpy10": "copy of 10 elements to NumPy",
    "mlp": "MLP training step, batch 128",
    "lenet": "LeNet training step, batch 128",
    "gemm1024": "GEMM 1024 x 1024 x 1024",
    "elementwise": "six elementwise operators over a million elements",
    "overlap": "two independent chains of products, then wait",
    "issue": "the same chains: time until the calls return",
}
