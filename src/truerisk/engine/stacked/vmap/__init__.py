"""What makes ordinary layers work, and work fast, under ``torch.vmap``: all the magic there is.

Nothing outside this folder changes how torch computes. `truerisk.engine.stacked.reference` does
without any of it; the tests compare the two, and both with single runs.

batching_rules
    Bends: what torch's functions do inside ``vmap``, by a `TorchFunctionMode`, for a dozen layers.
    Why: each member has weights of its own, so layers become batched products, whose speed depends
    on the order of the axes. Without it: a step takes several times as long; batch normalization
    under mixed precision, and a label smoothing or a dropout a member, do not work at all.
rnn
    Bends: recurrent layers, which are written out step by step on stacked tensors.
    Why: torch has no batching rule for them (pytorch/pytorch#134606, #105982). Without it: models
    with such layers cannot be measured under ``vmap``, and train slowly.
unfold
    Bends: the windows of a convolution, which are copied tap by tap, with a backward of their own.
    Why: a third of a CNN1D's step went into the backward of torch's own, a view. Without it: the
    same numbers, more slowly.
dropout_streams
    Bends: dropout, which takes its masks from a stream a member.
    Why: torch's dropout knows only the global generator (pytorch/pytorch#76580), so that a member's
    masks would depend on who else is in the stack. Without it: no member could be resumed, or
    repeated, in other company.
spare_rows
    Bends: the length of a stack, whose last rows are no member's where that matters.
    Why: torch takes what is left over at a stack's end by other code. Without it: a member's last
    digits depend on who else is in the stack, so that one whose neighbours have ended before it was
    killed does not go on to the same numbers.
traced_function
    Bends: Python, which is run once; its operations on tensors are then played back.
    Why: at a hundred microseconds a member-step, the model's own Python, ``vmap`` and autograd take
    longer than the arithmetic. Without it: the same bits, more slowly.
"""
