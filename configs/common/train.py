"""Training settings that are neither model, data nor optimisation; read by train_net.py."""

import torch

train = dict(
    output_dir="./output",
    # Weights to start from: a path, a URL, or a name of Detectron2's catalogue ("detectron2://…").
    init_checkpoint="",
    # Whether weights may leave tensors of the model at random, or have tensors without a place.
    # Without, that is an error for --eval-only and --resume; a training's start must fill the body.
    allow_unfitting_weights=False,
    max_iter=90000,
    # Scales gradients down before each step, so that the norm of all of them together is at most
    # max_norm; None: not. norm_type 2 is Euclidean.
    clip_gradients=dict(max_norm=None, norm_type=2.0),
    # What a loss or gradient that is infinite or NaN does: "stop" ends the run, "skip" leaves the
    # batch out, up to 10 in a row. Either leaves the batch in the output folder for a replay.
    nonfinite="stop",
    # Automatic mixed precision. enabled=None: a new run takes bfloat16 on a CPU that computes in it
    # (avx512_bf16, amx_bf16), else float32; a resumed one keeps what it began with. True: what
    # precision says, "float16" on a GPU (left off with a warning elsewhere), "bfloat16" there or on
    # a CPU.
    amp=dict(enabled=None, precision="float16"),
    # Exponential moving average of the weights. It is what is evaluated and what checkpoints hold
    # as the model; the weights in training are kept beside it to continue from.
    ema=dict(enabled=False, decay=0.999),
    ddp=dict(broadcast_buffers=False, find_unused_parameters=False, fp16_compression=False),
    checkpointer=dict(period=5000, max_to_keep=5),
    # Keeps the weights with the best figure as model_best.pth.
    best_checkpointer=dict(val_metric="parsing/APp50", mode="max"),
    eval_period=5000,
    log_period=20,
    # Detectron2's EventWriters beside those of the screen, metrics.json and TensorBoard.
    writers=[],
    # Memory layout of the weights; None: channels last where it is faster, on CPUs.
    channels_last=None,
    # Precision of the evaluated model: "fp32", "bf16", "fp16" (GPUs) or "auto" evaluate a copy made
    # by optimize_for_inference, as aiparsing parse does; None: the model as it is trained.
    eval_precision=None,
    # Of all random numbers, together with the process, the sample and the iteration: a resumed run
    # ends as if it had not been interrupted. Negative: each run draws one, which config.yaml tells.
    seed=-1,
    # Batch size to scale rate, length and periods to; None: the data loader's, as they are.
    scale_to_batch_size=None,
    device="cuda" if torch.cuda.is_available() else "cpu",
)
del torch
