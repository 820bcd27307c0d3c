timeout 3 cp pipe copied || echo BREACH it waits
