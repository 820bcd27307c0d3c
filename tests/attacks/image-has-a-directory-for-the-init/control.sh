# Who takes "could not be started" for "has not failed".
mkdir init; ./init -- sh -c 'exit 3'
[ $? != 3 ]
