"""Published claims, one file each: ``conf/experiment/NAME.yaml`` has the study that shows it."""
