import mmap, ptwalk
RW, LEN, PAGE = mmap.PROT_READ | mmap.PROT_WRITE, 4 << 20, 4096

mm = ptwalk.AddressSpace()                                             # profile="uffd-wp-v2"
vma = mm.mmap(0x7f0000000000, LEN, RW, mmap.MAP_SHARED, ptwalk.ShmemFile(LEN))
mm.populate(vma.start, PAGE, write=True)                               # one page is present, 1023 are none
uffd = mm.userfaultfd()
uffd.register(vma.start, LEN, "wp")
print(uffd.writeprotect(vma.start, LEN))                               # every none PTE gets the marker
print(mm.access(vma.start + 1 * PAGE, write=False))                    # "fault-in the page as read-only"
print(mm.access(vma.start + 2 * PAGE, write=True))                     # "then report to userfaultfd server"
print(mm.ptdump(vma.start, LEN))                                       # †
print(uffd.writeprotect(vma.start + 2 * PAGE, LEN - 2 * PAGE, protect=False),    # "recover ... into a none pte"
      mm.access(vma.start + 3 * PAGE, write=True), mm.ptdump(vma.start, LEN), sep="\n")
