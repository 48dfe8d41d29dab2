SUMMARY = "The FFN of sparse language models, straight from flash"
DESCRIPTION = "Linked neuron packs: a static and a shared library for C that need libc and nothing else."

require lnp.inc

CARGO_SRC_DIR = "engine/capi"

# Its own script makes one object of the library, which exports the functions of lnp.h alone; cargo could not.
# It is told the linker that the class has set up, or else it would take the compiler's own.
do_compile() {
    cd ${S}/engine/capi
    export CARGO_TARGET_DIR="${B}/target"
    export CARGO_TARGET_$(echo ${RUST_HOST_SYS} | tr 'a-z-' 'A-Z_')_LINKER="${RUST_TARGET_CCLD}"
    CROSS=${TARGET_PREFIX} DESTDIR=${B}/installed ./install ${prefix} ${RUST_HOST_SYS}
}

do_install() {
    install -d ${D}${includedir} ${D}${libdir}/pkgconfig
    install -m 0644 ${B}/installed${includedir}/lnp.h ${D}${includedir}
    install -m 0644 ${B}/installed${prefix}/lib/pkgconfig/lnp.pc ${D}${libdir}/pkgconfig
    cp -R --no-dereference --preserve=mode,links ${B}/installed${prefix}/lib/liblnp.* ${D}${libdir}
}
