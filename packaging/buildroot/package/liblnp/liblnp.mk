################################################################################
#
# liblnp
#
################################################################################

LIBLNP_VERSION = 0.2.0
LIBLNP_SITE = file://$(BR2_EXTERNAL_LNP_PATH)
LIBLNP_SOURCE = lnp-$(LIBLNP_VERSION).tar.gz
LIBLNP_LICENSE = MIT or Apache-2.0
LIBLNP_LICENSE_FILES = LICENSE-MIT LICENSE-APACHE
LIBLNP_SUBDIR = engine/capi
LIBLNP_INSTALL_STAGING = YES

# Its own script makes one object of the library, which exports the
# functions of lnp.h alone; cargo could not.
define LIBLNP_BUILD_CMDS
	cd $(LIBLNP_SRCDIR) && \
	$(TARGET_MAKE_ENV) $(PKG_CARGO_ENV) CARGO_NET_OFFLINE=true \
		CROSS=$(TARGET_CROSS) DESTDIR=$(@D)/installed \
		./install /usr $(RUSTC_TARGET_NAME)
endef

define LIBLNP_INSTALL_STAGING_CMDS
	mkdir -p $(STAGING_DIR)/usr
	cp -a $(@D)/installed/usr/. $(STAGING_DIR)/usr/
endef

# With musl there is the static library alone.
define LIBLNP_INSTALL_TARGET_CMDS
	mkdir -p $(TARGET_DIR)/usr/lib
	for file in $(@D)/installed/usr/lib/liblnp.so*; do \
		if [ -e "$$file" ]; then cp -a "$$file" $(TARGET_DIR)/usr/lib/; fi; \
	done
endef

$(eval $(cargo-package))
