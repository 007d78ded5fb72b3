#!/bin/sh
# Runs prima-tensor's tests on an emulated processor, to prove kernels that the machine at hand cannot run.
#
#   scripts/emulated-cpu/run.sh BOCHS KERNEL MODEL [TEST...]
#
# BOCHS   Bochs 3 (its program; built with --enable-cpu-level=6 --enable-x86-64 --enable-avx --enable-evex --with-nogui).
#         BXSHARE is its folder of BIOS images, if it is not installed.
# KERNEL  a Linux kernel (vmlinuz) for x86-64; a distribution's will do.
# MODEL   one of Bochs' processors: corei7_skylake_x (avx512), corei7_haswell_4770 (avx2),
#         core2_penryn_t9600 (portable).
# TEST    lib, or files of crates/tensor/tests; by default those that run kernels of the processor.
#
# Needs cargo, xorriso, cpio, gzip and Debian's isolinux and syslinux-common (or SYSLINUX, a folder that holds
# isolinux.bin and ldlinux.c32). What the machine prints is left in $CARGO_TARGET_DIR/emulated-cpu/MODEL/serial.txt.
set -eu

if [ $# -lt 3 ]; then
    sed -n '2,16s/^# \{0,1\}//p' "$0"
    exit 2
fi
bochs=$(realpath "$1")
kernel=$(realpath "$2")
model=$3
shift 3
[ $# -gt 0 ] || set -- lib depthwise layout norm pointwise products

cd "$(dirname "$0")/../.."
out=$(realpath -m "${CARGO_TARGET_DIR:-target}")/emulated-cpu/$model
rm -rf "$out"
mkdir -p "$out/root/tests" "$out/root/proc" "$out/root/dev" "$out/root/tmp" "$out/disk"

chosen=
for name in "$@"; do
    if [ "$name" = lib ]; then chosen="$chosen --lib"; else chosen="$chosen --test $name"; fi
done
# shellcheck disable=SC2086 # one word an argument
cargo test --release --locked -p prima-tensor --no-run $chosen 2>&1 | tee "$out/cargo.txt"
sed -n 's/^ *Executable.* (\(.*\))$/\1/p' "$out/cargo.txt" | while read -r program; do
    # cargo's names end in a hash.
    strip -o "$out/root/tests/$(basename "${program%-*}")" "$program"
done
rustc -O --edition 2024 -C strip=symbols scripts/emulated-cpu/init.rs -o "$out/root/init"
# The initial file system holds the programs and the libraries that they are linked with.
ldd "$out/root/init" "$out"/root/tests/* | grep -o '/[^ :]*\.so[^ :]*' | sort -u | while read -r library; do
    mkdir -p "$out/root$(dirname "$library")"
    cp -L "$library" "$out/root$library"
done

(cd "$out/root" && find . | cpio --quiet -o -H newc | gzip -1) >"$out/disk/initrd.gz"
cp "$kernel" "$out/disk/vmlinuz"
for file in isolinux.bin ldlinux.c32; do
    found=$(find ${SYSLINUX:-/usr/lib/ISOLINUX /usr/lib/syslinux/modules/bios} -name $file | head -n 1)
    cp "$found" "$out/disk/"
done
cat >"$out/disk/isolinux.cfg" <<END
default prima
label prima
  kernel vmlinuz
  initrd initrd.gz
  append console=ttyS0 quiet panic=-1 random.trust_cpu=on tsc=reliable mitigations=off cryptomgr.notests apparmor=0 audit=0 nokaslr
END
xorriso -as mkisofs -quiet -o "$out/disk.iso" -b isolinux.bin -c boot.cat -no-emul-boot -boot-load-size 4 \
    -boot-info-table "$out/disk"

share=${BXSHARE:-$(dirname "$bochs")/../share/bochs}
cat >"$out/bochsrc" <<END
display_library: ${BOCHS_DISPLAY:-nogui}
memory: guest=512, host=512
# Few instructions a second: what waits, waits for less of them.
cpu: model=$model, count=1, ips=5000000, reset_on_triple_fault=0
romimage: file=$share/BIOS-bochs-latest
vgaromimage: file=$(find "$share" -name VGABIOS-lgpl-latest.bin | head -n 1)
ata0-master: type=cdrom, path=$out/disk.iso, status=inserted
boot: cdrom
com1: enabled=1, mode=file, dev=$out/serial.txt
clock: sync=none
log: $out/bochs.txt
panic: action=fatal
error: action=report
info: action=report
END
# Switching the machine off ends Bochs with a panic: what counts is what the tests said.
"$bochs" -q -f "$out/bochsrc" >"$out/bochs-output.txt" 2>&1 </dev/null || true
grep -a -E '^(====|kernel |test result|test .*FAILED)' "$out/serial.txt"
grep -a -q '^==== .* programs, 0 failed' "$out/serial.txt"
