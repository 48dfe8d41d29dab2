include $(sort $(wildcard $(BR2_EXTERNAL_LNP_PATH)/package/*/*.mk))
