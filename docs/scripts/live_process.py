import os
import numpy as np, ptwalk

mm, report = ptwalk.live.read(os.getpid())                     # a pair
print(report)                                                  # what pagemap does not show and was inferred
for vma in mm.vmas:
    print(vma, mm.count(vma.start, vma.length))                # entries by kind, no array
big = max(mm.vmas, key=lambda v: mm.count(v.start, v.length).get("present", 0))
d = mm.decode(mm.ptes(big.start, min(big.length, 1 << 30)))    # at most 2 MiB of entries
print(f"{np.mean(d['write'][d['kind'] == ptwalk.Kind.PRESENT]):.0%} of the present entries are writable")
