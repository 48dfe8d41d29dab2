################################################################################
#
# lnp
#
################################################################################

LNP_VERSION = 0.2.0
LNP_SITE = file://$(BR2_EXTERNAL_LNP_PATH)
LNP_LICENSE = MIT or Apache-2.0
LNP_LICENSE_FILES = LICENSE-MIT LICENSE-APACHE
LNP_SUBDIR = tools

$(eval $(cargo-package))
