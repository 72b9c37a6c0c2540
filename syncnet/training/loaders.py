"""The training and the validation loader of a run."""

import os

import torch

from DatasetLoader import DatasetLoader
from syncnet.compute import distributed
from syncnet.loading.sizes import TooFewClips, sizes_remedy
from syncnet.media.clips import MediaError, read_list
from syncnet.training.flags import Flags


def make_loaders(
    args: Flags, result_folder: str, device: torch.device
) -> tuple[DatasetLoader, DatasetLoader]:
    """Create the loaders of --train_list and --verify_list. Prints unused validation clips and augmentation folders.

    result_folder: folder for the log of unreadable clips. Raises MediaError, naming the flag of the list.
    """
    train = make_loader(args, "train_list", args.nTrainPerEpoch, result_folder, device)
    verify = make_loader(args, "verify_list", args.nTestPerEpoch, result_folder, device)
    if skipped := verify.nFiles % args.nBatchSize:
        print(
            f"{args.verify_list}: validation is on {verify.nFiles - skipped} clips; the other "
            f"{skipped} do not fill a batch of {args.nBatchSize} (--nBatchSize)"
        )
    for folder in train.augmentation.folders if train.augmentation else ():
        print(folder)
    return train, verify


def make_loader(
    args: Flags, flag: str, clips: int, result_folder: str, device: torch.device
) -> DatasetLoader:
    file_list = getattr(args, flag)
    try:
        return DatasetLoader(
            file_list,
            clips,
            args.nBatchSize,
            args.maxFrames,
            args.nDataLoaderThread,
            evalmode=flag == "verify_list",
            seed=args.seed,
            pin_memory=device.type == "cuda",
            allow_resize=args.allow_resize,
            max_bad=args.max_bad,
            bad_log=os.path.join(result_folder, "bad_clips.txt"),
            decode_timeout=args.decode_timeout,
            share=(distributed.rank(), distributed.processes()),
            augment_noise=args.augment_noise,
            augment_rir=args.augment_rir,
            augment_prob=args.augment_prob,
            flip=args.flip,
        )
    except TooFewClips as error:
        lists = [read_list(path) for path in (args.train_list, args.verify_list)]
        remedy = sizes_remedy(lists, args.maxFrames, args.nBatchSize, distributed.processes())
        raise MediaError(f"--{flag} {error.found} {remedy}") from None
    except MediaError as error:
        if not str(error).startswith(file_list):
            raise
        raise MediaError(f"--{flag} {error}") from None
