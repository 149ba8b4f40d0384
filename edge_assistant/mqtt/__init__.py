"""Questions, answers and the home's states over MQTT."""
