"""Remedies at the end of error messages.

Remedies that depend on the data (sizes that would fit, a command to type) are computed where the data is.
"""

# By command.
OUT_OF_MEMORY = {
    "trainSyncNet.py": "Use a smaller --nBatchSize or --maxFrames (with --force_resume, if this run has been saved "
    "already), or --precision bf16",
}
CLOSE_PROGRAMS = "Close other programs, or use a machine with more memory"  # out of memory in other commands
DISK_FULL = "Free some space, then run the same command again"

ONE_WORKER = "use nWorkers 1 (--nWorkers 1), which starts none"
MAIN_GUARD = (
    "Worker processes import the script that starts them, so its code must be under "
    f'`if __name__ == "__main__":`. Or {ONE_WORKER}'
)
FEWER_WORKERS = "Run again with a smaller --nWorkers"

ADD_A_NETWORK = "see docs/options.md, Add a network"
NO_IDENTITY = (
    "this network has no identity heads: it knows when, not who. Use it for lip sync (inferSyncNet.py lse, offset, "
    "show; training with --alphaI 0), and another checkpoint for identities"
)
NO_CONTENT = "this network has no content heads: it knows who, not when"
