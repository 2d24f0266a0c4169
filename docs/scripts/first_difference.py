import mmap, ptwalk

R, RW, BASE, LEN = mmap.PROT_READ, mmap.PROT_READ | mmap.PROT_WRITE, 0x7f0000000000, 2 << 20

def program(profile):
    mm = ptwalk.AddressSpace(profile=profile)
    mm.mmap(BASE, LEN, RW, mmap.MAP_SHARED, ptwalk.ShmemFile(LEN))
    uffd = mm.userfaultfd()
    yield "write page 0", mm.access(BASE, write=True), mm
    yield "register wp", uffd.register(BASE, LEN, "wp"), mm
    yield "writeprotect", uffd.writeprotect(BASE, LEN), mm
    yield "mprotect r--", mm.mprotect(BASE, LEN, R), mm
    yield "mprotect rw-", mm.mprotect(BASE, LEN, RW), mm
    yield "write page 0", mm.access(BASE, write=True), mm

meaning = ["kind", "write", "uffd_wp"]                         # † what differs to user space, not the encoding
for (step, ra, a), (_, rb, b) in zip(program("uffd-wp-v2"), program("6.18")):
    same = a.decode(a.ptes(BASE, LEN))[meaning] == b.decode(b.ptes(BASE, LEN))[meaning]
    print(f"{step:13}", "same" if same.all() else f"page {same.argmin()} differs")
    if not same.all():
        print(a.profile, a.ptdump(BASE, 4096), ra, sep="\n  ")
        print(b.profile, b.ptdump(BASE, 4096), rb, sep="\n  ")
