"""DET plots: false rejections against false acceptances on normal-deviate axes."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import ArrayLike

from syncnet.support.errors import UserError
from syncnet.support.files import replace_file
from syncnet.verification.rates import P_TARGETS, check_trials, error_rates, min_dcf, tuneThresholdfromScore

DET_TICKS = (0.0001, 0.001, 0.01, 0.1, 0.5, 1, 2, 5, 10, 20, 40, 60, 80, 90, 95, 98, 99, 99.9)  # percent


def plot_det(curves: Mapping[str, tuple[ArrayLike, ArrayLike]], path: str) -> None:
    """Write a DET plot (Martin et al. 1997: FR against FA on normal-deviate axes) as a PNG.

    curves: (scores, labels) of each system by name. Markers show the EER (of tuneThresholdfromScore) and the minDCF.
    Rates of 0 and 1, which are infinite on these axes, are moved inward by half a trial.
    Raises UserError as tuneThresholdfromScore does, with the system's name, and OSError.
    """
    from matplotlib.figure import Figure  # slow to import, and only needed here
    from matplotlib.lines import Line2D
    from scipy.special import ndtri

    if not curves:
        raise UserError("no systems to plot")
    systems = []
    for name, (scores, labels) in curves.items():
        try:
            scores, labels = check_trials(scores, labels)
        except UserError as error:
            raise UserError(f"{name}: {error}") from error
        fpr, fnr, thresholds = error_rates(scores, labels)
        _, eer, baseline_fpr, baseline_fnr = tuneThresholdfromScore(scores, labels, [])
        nearest = np.argmin(np.abs(baseline_fnr - baseline_fpr))
        label = f"{name}: EER {eer:.4f} %"
        points = [(baseline_fpr[nearest] / 100, baseline_fnr[nearest] / 100)]
        for p in P_TARGETS:
            cost, threshold = min_dcf(scores, labels, p)
            point = np.flatnonzero(thresholds == threshold)[0]
            label += f", minDCF({p:g}) {cost:.3f}"
            points.append((fpr[point], fnr[point]))
        half = 0.5 / np.bincount(labels)  # rate of half a trial: non-target, target
        curve = np.clip(np.stack([fpr, fnr], axis=1), half, 1 - half)
        systems.append((label, ndtri(curve), ndtri(np.clip(points, half, 1 - half))))

    # All markers are in the plot, and at least 1 % to 50 % on both axes.
    all_points = np.concatenate([points for _, _, points in systems])
    low = np.minimum(ndtri(0.01), all_points.min(axis=0)) - 0.25
    high = np.maximum(ndtri(0.5), all_points.max(axis=0)) + 0.25
    figure = Figure(figsize=(7, 7), dpi=130)
    axes = figure.add_subplot()
    axes.plot([-9, 9], [-9, 9], color="0.6", linewidth=0.8, linestyle=":")
    handles = []
    for index, (label, curve, points) in enumerate(systems):
        color, style = f"C{index % 10}", ("-", "--", "-.", ":")[index // 10 % 4]
        handles += axes.plot(*curve.T, label=label, linewidth=1.6, color=color, linestyle=style)
        for point, marker in zip(points, "osD", strict=True):
            axes.plot(*point, marker, color=color, markeredgecolor="black", zorder=3)
    kinds = ["EER", *(f"minDCF({p:g})" for p in P_TARGETS)]
    for kind, marker in zip(kinds, "osD", strict=True):
        handles.append(Line2D([], [], marker=marker, color="0.8", markeredgecolor="black", ls="", label=kind))
    ticks = ndtri(np.array(DET_TICKS) / 100)
    names = [f"{tick:f}".rstrip("0").rstrip(".") for tick in DET_TICKS]
    axes.set_xticks(ticks, names, rotation=45)
    axes.set_yticks(ticks, names)
    axes.set(
        xlim=(low[0], high[0]), ylim=(low[1], high[1]), aspect="equal", title="Detection error trade-off"
    )
    axes.set(xlabel="False acceptance rate (%)", ylabel="False rejection rate (%)")
    axes.grid(color="0.9")
    axes.legend(handles=handles, loc="upper left", bbox_to_anchor=(-0.05, -0.13), frameon=False, fontsize=9)
    with replace_file(path, "wb") as file:
        figure.savefig(file, format="png", bbox_inches="tight")
