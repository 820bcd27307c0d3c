for address in 0.0.0.0 127.1.2.3 ::ffff:127.0.0.1 ::; do attack reach $address @PORT@ @NAME@; done
for address in localhost 2130706433 0x7f.1; do wget -T 2 -O - http://$address:@PORT@/@NAME@; done
