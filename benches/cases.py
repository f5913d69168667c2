"""The cases that are measured. How a library does each stands in its `case_*.py`; importing this costs
nothing.
"""

CASES: dict[str, str] = {
    "import": "import",
    "add10": "add of two 10-element arrays",
    "chain10": "forward and backward of ten tiny operators",
    "asnumpy10": "copy of 10 elements to NumPy",
    "mlp": "MLP training step, batch 128, hybridized",
    "mlp-eager": "the same, not hybridized",
    "lenet": "LeNet training step, batch 128, hybridized",
    "lenet-eager": "the same, not hybridized",
    "gemm1024": "GEMM 1024 x 1024 x 1024",
    "elementwise": "six elementwise operators over a million elements",
    "overlap": "two independent chains of products, then wait",
    "issue": "the same chains: time until the calls return",
    "chain20": "twenty elementwise operators over 4 M floats, hybridized",
    "resnet18": "ResNet-18 training step, batch 8, hybridized",
    "resnet18-eager": "the same, not hybridized",
    "resnet50": "ResNet-50 training step, batch 8, hybridized",
    "lstm": "LSTM training step (20 steps, batch 32, 128 units), hybridized",
    "lstm-eager": "the same, not hybridized",
    "bind10000": "infer, plan and bind a graph of 10,000 nodes",
    "executor": "MLP training step by Executor, batch 128",
    "module": "20 MLP training steps by Module.fit, batch 128",
}

#: The steps whose memory is measured (`bench.py --memory`).
MEMORY_CASES: dict[str, str] = {
    "resnet50": "ResNet-50 training, batch 8, hybridized, momentum",
    "resnet50-executor": "ResNet-50 training, batch 8, Executor, momentum",
}
