# %% [markdown]
# # From a trace to a picture
#
# Which neurons of a layer fire together, in the model's order and in the order that `lnp` links them to; and what reading
# them costs in each. To be run as a script, or cell by cell in an editor that knows `# %%`:
#
#     pip install matplotlib
#     python picture.py profile.trace test.trace picture.svg

# %%
import sys
import tempfile
from pathlib import Path

import matplotlib

matplotlib.use("agg")
import matplotlib.pyplot as plt
import numpy as np

import lnp

profile, test, picture = sys.argv[1:4]
LAYER, BUNDLE_BYTES = 0, 4096

# %% [markdown]
# The bits of the trace are not read before they are looked at. `active` unpacks those of one layer: tokens by neurons.

# %%
trace = lnp.Trace(profile)
active = trace.active(LAYER)
print(trace)
print(f"layer {LAYER}: {active.mean():.1%} of the neurons are active for a token")

# %% [markdown]
# Two orders of the same neurons, learned from that trace.

# %%
folder = tempfile.TemporaryDirectory()
files = {order: Path(folder.name) / f"{order}.links" for order in ("identity", "refined")}
orders = {order: lnp.link(profile, path, order=order, bundle_bytes=BUNDLE_BYTES) for order, path in files.items()}


# %% [markdown]
# How often two slots are active for the same token, as a share of the tokens for which one of them is. In linked order the
# most frequent neurons stand apart, at the end: a cache keeps them, and the others are linked for what it leaves to be read.

# %%
def together(order):
    placed = active[:, orders[order].neuron_of_slot(LAYER)].astype(np.float32)
    both = placed.T @ placed
    counts = np.diag(both)
    return both / np.maximum(counts[:, None] + counts[None, :] - both, 1)


def shrunk(matrix, cells=192):
    """The means of as many blocks as there is room for."""
    edges = np.linspace(0, len(matrix), min(cells, len(matrix)) + 1).astype(int)[:-1]
    sums = np.add.reduceat(np.add.reduceat(matrix, edges, 0), edges, 1)
    sizes = np.diff(np.append(edges, len(matrix)))
    return sums / np.outer(sizes, sizes)


# %% [markdown]
# What each order costs on another text, on a simulated phone.

# %%
law = lnp.DeviceLaw.oneplus_12()
rows = lnp.replay(test, links=files.values(), bundle_bytes=BUNDLE_BYTES, law=law, cache_ratio=0.1)
rows = [row for row in rows if row["strategy"] != "dense"]
for row in rows:
    print(f"{row['strategy']:24} {row['reads_per_token']:8.1f} reads {row['io_us_per_token']['mean'] / 1000:7.2f} ms a token")

# %%
figure, (before, after, bars) = plt.subplots(1, 3, figsize=(12, 4), layout="constrained",
                                             gridspec_kw={"width_ratios": [1, 1, 1.2]})
maps = {axes: shrunk(together(order)) for axes, order in [(before, "identity"), (after, "refined")]}
most = max(np.quantile(matrix, 0.99) for matrix in maps.values())
for (axes, matrix), title in zip(maps.items(), ["the model's order", "linked"]):
    image = axes.imshow(matrix, cmap="viridis", vmin=0, vmax=most, extent=(0, trace.neurons, trace.neurons, 0))
    axes.set(title=title, xlabel="slot", ylabel="slot")
figure.colorbar(image, ax=[before, after], label="active together", shrink=0.8)
times = [row["io_us_per_token"]["mean"] / 1000 for row in rows]
names = [row["strategy"].replace("bundle", "model's order").replace("refined", "linked").replace("+", " + ") for row in rows]
bars.barh(names, times, color=["tab:gray" if row["order"] == "identity" else "tab:blue" for row in rows])
bars.bar_label(bars.containers[0], fmt="%.2f", padding=3)
bars.invert_yaxis()
bars.margins(x=0.15)
bars.set(title="reading, simulated", xlabel="ms a token")
bars.spines[["top", "right"]].set_visible(False)
figure.savefig(picture)
print(f"{picture}: written")
