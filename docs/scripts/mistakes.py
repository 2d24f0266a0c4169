import mmap, numpy as np, ptwalk

RW, MiB, BASE = mmap.PROT_READ | mmap.PROT_WRITE, 1 << 20, 0x7f0000000000
mm = ptwalk.AddressSpace(profile="6.18")
for i in range(2):
    mm.mmap(BASE + i * 2 * MiB, 2 * MiB, RW, mmap.MAP_SHARED, ptwalk.ShmemFile(2 * MiB))
uffd = mm.userfaultfd()
uffd.register(BASE, 2 * MiB, "wp")                             # the first of the two only
for mistake in (lambda: uffd.writeprotect(BASE + 0x123, 4096),
                lambda: uffd.writeprotect(BASE, 4 * MiB),
                lambda: mm.decode(mm.ptes(BASE, 2 * MiB).astype(np.int64))):
    try:
        mistake()
    except ptwalk.PtwalkError as e:
        print(f"{type(e).__name__}: {e}\n  done: {getattr(e, 'done', None)}")               # †
